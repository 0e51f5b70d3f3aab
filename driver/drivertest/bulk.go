package drivertest

import (
	"fmt"

	"github.com/waggleq/waggle/driver"
)

var bulkCases = []testCase{
	{"an operation by filter costs a task the same however many match", bulkLinear},
}

// bulkLinear counts what the store does, not how long it takes, for operations page by page on n tasks and on four times
// as many.
func bulkLinear(h *harness) {
	if h.fixture.Work == nil {
		h.Fatal("a fixture has to count the store's work")
	}
	const few, many, page = 120, 480, 20
	for _, c := range []struct {
		name    string
		change  driver.Change
		prepare driver.Op // what brings the tasks into a state from which the operation is possible
	}{
		{"cancel", driver.Change{Op: driver.OpCancel, Filter: driver.Filter{Types: []string{"t"}}}, ""},
		{"retry", driver.Change{Op: driver.OpRetry, Filter: driver.Filter{Queues: []string{"q"}}}, driver.OpCancel},
		{"delete", driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Types: []string{"t"}}}, driver.OpCancel},
		{"purge", driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Queues: []string{"q"}, States: driver.OpDelete.From()}}, ""},
		{"a dry run", driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Queues: []string{"q"}}, DryRun: true}, ""},
	} {
		c.change.Max = page
		var cost [2]float64 // of a task
		for i, n := range []int{few, many} {
			list := tasks(fmt.Sprintf("%s%d", c.name[:1], i), n)
			for _, t := range list {
				t.Queue = "q"
			}
			h.add(list...)
			if c.prepare != "" {
				h.pages(driver.Change{Op: c.prepare, Filter: c.change.Filter, Max: driver.MaxApply})
			}
			before := h.fixture.Work()
			if changed := h.pages(c.change); changed != n {
				h.Errorf("%s: changed %d of %d", c.name, changed, n)
			}
			cost[i] = float64(h.fixture.Work()-before) / float64(n)
			h.pages(driver.Change{Op: driver.OpDelete, Filter: driver.Filter{All: true}, Max: driver.MaxApply})
		}
		if cost[0] <= 0 || cost[1] > 1.5*cost[0] {
			h.Errorf("%s: %.1f operations a task with %d tasks, %.1f with %d", c.name, cost[0], few, cost[1], many)
		}
	}
}

// pages does an operation by filter until there is no more, and returns how many tasks it changed.
func (h *harness) pages(c driver.Change) int {
	h.Helper()
	changed := 0
	for more := true; more; {
		res, err := h.store.Apply(h.ctx(), c)
		h.must(err)
		changed, more, c.Cursor = changed+res.Changed, res.More, res.Next
	}
	return changed
}
