package redisstore_test

import (
	"strconv"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestAdvanceInFewCommands does the steps of a hundred plans, each with a task, as schedules do that fire together: what the
// last of them waits for may not grow with each.
func TestAdvanceInFewCommands(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s := open(t, redistest.Start(t, &redisserver.Options{Flavour: f}).URL(), nil)
		sent := redisstore.CountScripts(s)
		advance := func(from, n int) int64 {
			steps := make([]driver.PlanStep, n)
			for i := range steps {
				ref := driver.PlanRef{Kind: "schedule", Name: "s-" + strconv.Itoa(from+i)}
				steps[i] = driver.PlanStep{PlanRef: ref, State: "active", Body: []byte("{}"), Tasks: []*driver.Task{{ID: driver.PlanTaskID(ref, "1"), Type: "t"}}}
			}
			before := sent()
			results, err := s.Advance(t.Context(), steps)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			return sent() - before
		}
		advance(0, 1) // the type's numbers are learned
		if n := advance(1, 100); n > 10 {
			t.Errorf("a hundred steps took %d commands, one after another", n)
		}
		infos, err := s.Queues(t.Context(), driver.DefaultQueue)
		if err != nil {
			t.Fatal(err)
		}
		if got := infos[0].Counts[driver.Available]; got != 101 {
			t.Errorf("%d tasks were stored of 101", got)
		}
	})
}
