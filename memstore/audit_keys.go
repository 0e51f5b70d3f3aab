package memstore

import "github.com/waggleq/waggle/driver"

// counted is what the records say of a key.
type counted struct{ held, waiting, available int }

// checkKeys checks what is kept of keys against the records, and that what is parked is what may not start.
func (s *Store) checkKeys(a *audit) {
	want := map[*queue]map[string]*counted{}
	for _, t := range s.tasks {
		q := t.line.queue
		if want[q] == nil {
			want[q] = map[string]*counted{}
		}
		c := want[q][t.Key]
		if c == nil {
			c = &counted{}
			want[q][t.Key] = c
		}
		switch {
		case t.State == driver.Available && q.flows(t):
			c.available++
		case t.Key == "":
		case t.State == driver.Active:
			c.held++
		case (t.State == driver.Scheduled || t.State == driver.Retryable) && t.Token > 0:
			c.waiting++
		}
	}
	for _, q := range s.queues {
		flowing := 0
		for name, c := range want[q] {
			if q.keys[name] == nil {
				a.expect(*c == counted{}, "missing-key", name, "%s: nothing is known of the key %q, which has tasks", q.name, name)
			}
		}
		for name, k := range q.keys {
			got := counted{k.active(), k.waiting, k.available()}
			c := counted{}
			if w := want[q][name]; w != nil {
				c = *w
			}
			a.expect(got == c, "count-key", name, "%s: key %q has %+v, %+v are counted", q.name, name, c, got)
			flowing += got.available
			for _, f := range k.flows {
				s.checkFlow(a, q, f)
			}
		}
		a.expect(flowing == q.flowing, "count-flowing", "", "%s: %d tasks wait in flows, %d are counted", q.name, flowing, q.flowing)
	}
}

func (s *Store) checkFlow(a *audit, q *queue, f *flow) {
	id := f.tasks.items[0].task.ID
	blocked, _ := s.blocked(q, f)
	late := f.key.opens > 0 && f.key.opens <= s.now.UnixMilli()
	a.expect(blocked == f.parked || f.parked && late, "parked", id, "%s: tasks of key %q are parked: %v, but may not start: %v", q.name, f.key.name, f.parked, blocked)
	a.expect((f.shown == nil) == f.parked, "head", id, "%s: key %q is parked: %v, and shown: %v", q.name, f.key.name, f.parked, f.shown != nil)
	if f.shown != nil {
		a.expect(f.shown == f.tasks.top() && inHeap(&f.line.heads, f.shown), "head", id, "%s: the first task of key %q is not where claims look", q.name, f.key.name)
	}
}
