package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// leveled is a server's store that has level memory and can't confirm level disk.
type leveled struct {
	driver.Store
	levels []driver.Durability
}

func (s *leveled) Capabilities() driver.Capabilities {
	c := s.Store.Capabilities()
	c.Shared, c.Durability, c.Stronger = true, s.levels, "for level disk set `appendonly yes` on the server"
	return c
}

func (s *leveled) Enqueue(ctx context.Context, tasks []*driver.Task, o driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	if o.Durability == driver.DurabilityDisk {
		return nil, driver.Errorf(driver.ErrNotDurable, "not confirmed")
	}
	return s.Store.Enqueue(ctx, tasks, o)
}

// TestLevelRefusesItsOwnTasksOnly: whatever becomes of the tasks of one durability level, those of another are stored, in
// whatever order they come.
func TestLevelRefusesItsOwnTasksOnly(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for name, c := range map[string]struct {
			levels []driver.Durability
			want   error
			call   bool // the call as a whole has the error too
		}{
			"not offered":   {[]driver.Durability{driver.DurabilityMemory}, waggle.ErrUnsupported, false},
			"not confirmed": {[]driver.Durability{driver.DurabilityMemory, driver.DurabilityDisk}, waggle.ErrNotDurable, true},
		} {
			client, err := waggle.NewClient(&leveled{e.mem, c.levels}, &waggle.ClientOptions{Logger: slog.New(e.logs)})
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				var tasks []waggle.NewTask
				for i := range 6 {
					level := []waggle.Durability{"", waggle.DurabilityDisk, waggle.DurabilityMemory}[i%3]
					tasks = append(tasks, waggle.NewTask{Type: "x", Options: &waggle.EnqueueOptions{Durability: level}})
				}
				results, err := client.EnqueueBatch(t.Context(), tasks)
				if errors.Is(err, c.want) != c.call {
					t.Errorf("%s: the call ends with %v", name, err)
				}
				for i, r := range results {
					refused := i%3 == 1
					if refused && !errors.Is(r.Err, c.want) || !refused && (r.Err != nil || r.State != waggle.Available) || r.ID == "" {
						t.Errorf("%s: task %d at level %q: %+v", name, i, tasks[i].Options.Durability, r)
					}
				}
			}
			if err := client.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestLevelIsToldOnce: a client says once that tasks are in a server's memory only, and how to have more.
func TestLevelIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		store := &leveled{e.mem, []driver.Durability{driver.DurabilityMemory}}
		client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: slog.New(e.logs)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := client.Enqueue(t.Context(), "x", i, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := e.logs.count(slog.LevelInfo, "tasks are stored at level memory, and a server that crashes loses what it had not written: "+store.Capabilities().Stronger); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
		_, err = client.Enqueue(t.Context(), "x", nil, &waggle.EnqueueOptions{Durability: waggle.DurabilityDisk})
		if !errors.Is(err, waggle.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), "appendonly yes") {
			t.Errorf("a level that is not offered: %v", err)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
