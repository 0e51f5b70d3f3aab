package memstore

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

// full returns a store with a task in every state, each named like its state, held by or settled by worker w.
func full(t *testing.T) *Store {
	t.Helper()
	s := open(t, nil)
	register(t, s, "w")
	outcomes := map[string]driver.Outcome{"completed": driver.Complete, "discarded": driver.Discard, "cancelled": driver.CancelOutcome, "retryable": driver.Retry}
	for _, id := range []string{"active", "completed", "discarded", "cancelled", "retryable"} {
		enqueue(t, s, &driver.Task{ID: id, Type: "t", Payload: []byte(`"x"`)})
		for _, c := range fetch(t, s, "w", 1).Claims {
			if o := outcomes[id]; o != "" {
				settle(t, s, "w", driver.Settlement{ID: id, Token: c.Token, Outcome: o, Delay: time.Hour})
			}
		}
	}
	enqueue(t, s,
		&driver.Task{ID: "scheduled", Type: "t", Delay: time.Hour, Unique: &driver.Unique{Key: "done"}},
		&driver.Task{ID: "available", Type: "t", ExpiresIn: time.Hour, Unique: &driver.Unique{Key: "ttl", Until: driver.UntilTTL, TTL: time.Hour}},
		&driver.Task{ID: "pending", Type: "t", Hold: true})
	for _, state := range driver.States {
		if got := s.tasks[string(state)].State; got != state {
			t.Fatalf("task %s is %s", state, got)
		}
	}
	return s
}

func TestAuditFindsAndRepairs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(s *Store, l *line)
		kinds  []string
	}{
		"an available task that is not in line": {func(s *Store, l *line) { l.heaps[byPriority].remove(s.tasks["available"]) }, []string{"count-index", "missing-index"}},
		"an expiry that is not watched":         {func(s *Store, l *line) { l.heaps[byExpiry].remove(s.tasks["available"]) }, []string{"count-index", "missing-index"}},
		"a due time that is not watched":        {func(s *Store, l *line) { l.heaps[byDue].remove(s.tasks["retryable"]) }, []string{"count-index", "missing-index"}},
		"a task in line that is pending":        {func(s *Store, l *line) { l.heaps[byPriority].push(s.tasks["pending"]) }, []string{"count-index"}},
		"a worker that does not know its task":  {func(s *Store, l *line) { s.workers["w"].held = list{} }, []string{"count-held"}},
		"a cancellation that is not delivered":  {func(s *Store, l *line) { s.tasks["active"].CancelRequested = true }, []string{"lost-cancel"}},
		"a worker that is gone":                 {func(s *Store, l *line) { delete(s.workers, "w") }, []string{"orphan-active"}},
		"a wrong counter":                       {func(s *Store, l *line) { *l.counts.of(driver.Completed)++ }, []string{"count-state"}},
		"a wrong total":                         {func(s *Store, l *line) { l.queue.totals.Enqueued++ }, []string{"totals"}},
		"a wrong size":                          {func(s *Store, l *line) { l.queue.kept.of(driver.Discarded).bytes++ }, []string{"count-bytes"}},
		"an ended task that is not kept":        {func(s *Store, l *line) { l.queue.kept.of(driver.Cancelled).list = list{} }, []string{"count-bytes", "count-kept"}},
		"a unique key without its owner": {func(s *Store, l *line) {
			s.keys["x"] = s.tasks["completed"]
			s.tasks["completed"].Unique = &driver.Unique{Key: "x"}
		}, []string{"orphan-key"}},
		"an owner without its unique key": {func(s *Store, l *line) { delete(s.keys, "done") }, []string{"lost-key"}},
		"a unique key that never ends":    {func(s *Store, l *line) { s.keyEnds.remove(s.tasks["available"]) }, []string{"count-key-ends", "missing-key-end"}},
		"a task that no list shows": {func(s *Store, l *line) {
			s.journal.tasks = slices.DeleteFunc(s.journal.tasks, func(t *task) bool { return t.ID == "pending" })
		}, []string{"count-journal"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := full(t)
			c.damage(s, s.queues[driver.DefaultQueue].lines["t"])
			for _, repair := range []bool{false, true} { // the first must not have repaired
				findings, err := s.Audit(t.Context(), repair)
				if err != nil {
					t.Fatal(err)
				}
				var kinds []string
				for _, f := range findings {
					kinds = append(kinds, f.Kind)
					if f.Repaired != repair {
						t.Errorf("repair %v: %+v", repair, f)
					}
				}
				slices.Sort(kinds)
				if diff := cmp.Diff(c.kinds, kinds); diff != "" {
					t.Fatalf("findings (-want +got):\n%s", diff)
				}
			} // what is left is found when the store is closed
		})
	}
}
