package waggle

import (
	"context"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// compare says in the results of tasks whose own ids were known in what the stored tasks differ from them, and refuses
// those whose options ask for it. A task that can't be looked at any more is not said to differ.
func (c *Client) compare(ctx context.Context, tasks []NewTask, results []EnqueueResult) {
	var indexes []int
	for i, r := range results {
		if o := tasks[i].Options; r.Err == nil && r.Existing && o != nil && o.ID == r.ID {
			indexes = append(indexes, i)
		}
	}
	for len(indexes) > 0 {
		n := min(len(indexes), driver.MaxPage)
		c.comparePage(ctx, tasks, results, indexes[:n])
		indexes = indexes[n:]
	}
}

func (c *Client) comparePage(ctx context.Context, tasks []NewTask, results []EnqueueResult, indexes []int) {
	ids := make([]string, len(indexes))
	for k, i := range indexes {
		ids[k] = results[i].ID
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	records, err := c.store.Get(ctx, ids)
	for k, i := range indexes {
		reject, r := tasks[i].Options.RejectDiffering, &results[i]
		switch {
		case err != nil && reject:
			r.Err = driver.Errorf(ErrUnavailable, "the id is known, and the task that has it can't be compared: %w", err)
		case err == nil && records[k] != nil:
			r.Differs = differences(&tasks[i], records[k])
			if reject && len(r.Differs) > 0 {
				r.Err = driver.Errorf(ErrDuplicate, "task %s already exists and differs: %s", r.ID, strings.Join(r.Differs, ", "))
			}
		}
	}
}

// differences lists in what a stored task is another than the one that was handed in with its id.
func differences(n *NewTask, stored *driver.Record) []string {
	var t driver.Task
	if n.Options.fill(&t, n.Type, n.Payload) != nil {
		return nil // it was encoded before
	}
	if t.Queue == "" {
		t.Queue = DefaultQueue
	}
	var list []string
	if t.Type != stored.Type {
		list = append(list, "type")
	}
	if t.Queue != stored.Queue {
		list = append(list, "queue")
	}
	if !sameData(Data{t.Payload, t.Encoding}, Data{stored.Payload, stored.Encoding}) {
		list = append(list, "payload")
	}
	return list
}
