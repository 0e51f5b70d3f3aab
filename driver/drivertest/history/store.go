package history

import (
	"cmp"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// checkStore: the audit found nothing, leases have workers, counters are right.
func (c *checker) checkStore() {
	for _, f := range c.dump.Findings {
		c.failf(NoLeaks, f.ID, "the audit found %s: %s", f.Kind, f.Detail)
	}
	held, workers := map[string]int{}, map[string]bool{}
	for _, r := range c.dump.Records {
		if r.State == driver.Active {
			held[r.Worker]++
		}
	}
	for _, w := range c.dump.Workers {
		workers[w.ID] = true
		if w.Held != held[w.ID] {
			c.failf(NoLeaks, "", "worker %s is said to hold %d tasks, %d are active in its name", w.ID, w.Held, held[w.ID])
		}
	}
	for w, n := range held {
		if !workers[w] {
			c.failf(NoLeaks, "", "%d tasks are held by %s, which is not registered", n, w)
		}
	}
	listed := map[string]map[driver.State]int{}
	for _, r := range c.dump.Records {
		if listed[r.Queue] == nil {
			listed[r.Queue] = map[driver.State]int{}
		}
		listed[r.Queue][r.State]++
	}
	for _, q := range c.dump.Queues {
		c.checkCounters(q, listed[q.Name])
		delete(listed, q.Name)
	}
	for name := range listed {
		c.failf(Conservation, "", "queue %s has tasks and no counters", name)
	}
}

func (c *checker) checkCounters(q driver.QueueInfo, listed map[driver.State]int) {
	live := int64(0)
	for _, s := range driver.States {
		if q.Counts[s] != listed[s] {
			c.failf(Conservation, "", "queue %s counts %d %s tasks and has %d", q.Name, q.Counts[s], s, listed[s])
		}
		if !s.Ended() {
			live += int64(listed[s])
		}
	}
	t := q.Totals
	if in, out := t.Enqueued+t.Retried, t.Completed+t.Cancelled+t.Discarded+live+t.DeletedLive; in != out {
		c.failf(Conservation, "", "queue %s took in %d tasks and accounts for %d: %+v with %d live", q.Name, in, out, t, live)
	}
}

// checkUnique: no two tasks with the same key, unique until done, lived at the same time of the store's clock. What a
// person retried is left out: its second life is not in its record.
func (c *checker) checkUnique() {
	owners := map[string][]*driver.Record{}
	for _, t := range c.tasks {
		if len(t.records) != 1 || t.retried > 0 {
			continue
		}
		if key := t.uniqueKey(); key != "" {
			owners[key] = append(owners[key], t.records[0])
		}
	}
	for key, records := range owners {
		slices.SortFunc(records, func(a, b *driver.Record) int {
			return cmp.Or(a.EnqueuedAt.Compare(b.EnqueuedAt), endOf(a).Compare(endOf(b)), cmp.Compare(a.ID, b.ID))
		})
		for i, b := range records[1:] {
			if a := records[i]; !a.State.Ended() || b.EnqueuedAt.Before(a.EndedAt) {
				c.failf(NoLeaks, b.ID, "it was accepted at %v with the unique key %q of %s, which was not done", b.EnqueuedAt, key, a.ID)
			}
		}
	}
}

// endOf returns when a task ended, far in the future if it has not.
func endOf(r *driver.Record) time.Time {
	if !r.State.Ended() {
		return time.Unix(1<<40, 0)
	}
	return r.EndedAt
}

// uniqueKey returns the key as the producer asked for it, else as it is stored.
func (t *life) uniqueKey() string {
	for _, e := range t.accepted {
		if !e.Existing && e.Unique != "" {
			return e.Unique
		}
	}
	if u := t.records[0].Unique; u != nil && u.Until == driver.UntilDone {
		return u.Key
	}
	return ""
}
