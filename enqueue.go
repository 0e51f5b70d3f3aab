package waggle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Receipt says what became of an enqueue.
type Receipt struct {
	ID         string     `json:"id"`         // of the stored task: the new one, or the one that was there
	State      State      `json:"state"`      // of the stored task
	Durability Durability `json:"durability"` // the level at which it is stored
	Existing   bool       `json:"existing"`   // nothing was stored: the id was known, or the unique key taken
	// Differs lists in what the task that is there under the caller's own id is another than the one handed in: "type",
	// "queue", "payload" (of JSON the value). It is empty if they are the same.
	Differs []string `json:"differs,omitzero"`
}

// NewTask is a task to be enqueued. Payload is any value, stored as JSON; json.RawMessage is stored as it is, []byte as
// raw bytes, nil as nothing.
type NewTask struct {
	Type    string          `json:"type"`
	Payload any             `json:"payload,omitzero"`
	Options *EnqueueOptions `json:"options,omitzero"`
}

// EnqueueResult is what became of one task of a batch: a receipt, or why there is none. Even then the receipt has the
// task's ID.
type EnqueueResult struct {
	Receipt
	Err error `json:"-"`
}

// EnqueueFunc enqueues tasks; the results are parallel to them. An error is one of the call as a whole.
type EnqueueFunc func(ctx context.Context, tasks []NewTask) ([]EnqueueResult, error)

// EnqueueMiddleware wraps enqueueing: it may change the tasks, refuse them, or look at what became of them. It sees the
// tasks of [Client.Enqueue] one at a time and those of [Client.EnqueueBatch] together.
type EnqueueMiddleware func(next EnqueueFunc) EnqueueFunc

// Enqueue stores a task. When it returns nil the task is stored at the level that the receipt names, and runs until it
// ends in completed, cancelled or discarded.
//
// Concurrent calls share round trips: while one batch is under way the next one fills. A lone call waits for nobody.
//
// The task's id is made here, before anything is sent, and is in the receipt even if an error is returned. After an
// error that leaves the outcome open ([ErrUnavailable], [ErrNotDurable], the end of ctx) enqueue it again with that
// EnqueueOptions.ID: it is stored once, however often that is done. The client itself repeats a call in that way a few
// times when the store is unavailable. A ctx that ends makes this call return, and nothing else: the other calls of its
// batch are not affected, and the task may or may not have been stored.
//
// A full queue refuses the task with [ErrQueueFull], or has the call wait until there is room or ctx ends, as its [Bound] says.
//
// Errors: [ErrInvalid], [ErrDuplicate], [ErrQueueClosed], [ErrQueueFull], [ErrStoreFull], [ErrNotDurable], [ErrUnavailable],
// [ErrUnsupported], [ErrClosed], or why ctx ended.
func (c *Client) Enqueue(ctx context.Context, typ string, payload any, opts *EnqueueOptions) (Receipt, error) {
	if c.enqueue == nil {
		r, err := c.enqueueOne(ctx, typ, payload, opts)
		return r, enqueueFailed(typ, err)
	}
	results, err := c.enqueue(ctx, []NewTask{{typ, payload, opts}})
	if len(results) != 1 {
		return Receipt{}, enqueueFailed(typ, cmpError(err, "a middleware returned %d results for one task", len(results)))
	}
	return results[0].Receipt, enqueueFailed(typ, cmpOr(results[0].Err, err))
}

func cmpOr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func cmpError(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return driver.Invalidf(format, args...)
}

func enqueueFailed(typ string, err error) error {
	if err == nil {
		return nil
	}
	return failed("enqueue "+typ, err)
}

// enqueueOne sends one task through the lane of its level.
func (c *Client) enqueueOne(ctx context.Context, typ string, payload any, opts *EnqueueOptions) (Receipt, error) {
	t := new(driver.Task)
	if err := c.fill(t, typ, payload, opts); err != nil {
		return Receipt{ID: t.ID}, err
	}
	// A caller that gives up may use these again while the batch that holds the task is on its way.
	t.Payload, t.Headers, t.Tags = ownBytes(t.Payload, payload), maps.Clone(t.Headers), slices.Clone(t.Tags)
	if ctx.Err() != nil {
		return Receipt{ID: t.ID}, causeOf(ctx)
	}
	r := c.throughLane(ctx, t, c.level(opts), opts != nil && opts.ID != "")
	if queue, wait := waitsForRoom(r.Err); wait {
		r = c.whenRoom(ctx, queue, t, opts, r)
	}
	if r.Existing && r.Err == nil && opts != nil && opts.ID != "" {
		results := []EnqueueResult{r}
		c.compare(ctx, []NewTask{{typ, payload, opts}}, results)
		r = results[0]
	}
	return r.Receipt, r.Err
}

func (c *Client) throughLane(ctx context.Context, t *driver.Task, level Durability, chosen bool) EnqueueResult {
	lane, err := c.lanes.of(level)
	if err != nil {
		return EnqueueResult{Receipt{ID: t.ID}, err}
	}
	return lane.enqueue(ctx, t, chosen)
}

// whenRoom enqueues a task that a full queue has refused as soon as there is room. r is the refusal.
func (c *Client) whenRoom(ctx context.Context, queue string, t *driver.Task, opts *EnqueueOptions, r EnqueueResult) EnqueueResult {
	refused := r
	err := c.rooms.until(ctx, queue, func() bool {
		r = c.throughLane(ctx, t, c.level(opts), true) // an earlier call has had this id
		_, wait := waitsForRoom(r.Err)
		return !wait
	})
	if err != nil {
		refused.Err = gaveUp(refused.Err, err)
		return refused
	}
	if r.ID == t.ID && (opts == nil || opts.ID == "") {
		r.Existing = false // it is this call that has stored it
	}
	return r
}

// ownBytes returns a payload's bytes, copied if they are the caller's.
func ownBytes(b []byte, payload any) []byte {
	switch payload.(type) {
	case []byte, json.RawMessage, Data:
		return bytes.Clone(b)
	}
	return b
}

// fill makes t the task to be stored, and refuses what no batch could carry, together with all else that is wrong with it.
func (c *Client) fill(t *driver.Task, typ string, payload any, opts *EnqueueOptions) error {
	err := opts.fill(t, typ, payload)
	if t.ID == "" {
		t.ID = c.store.NewID(t)
	}
	t.MaxAttempts = cmp.Or(t.MaxAttempts, c.opts.MaxAttempts)
	if limit := min(c.limits.MaxPayload, c.limits.MaxBatchBytes); err == nil && len(t.Payload) > limit {
		err = driver.Invalidf("the payload has %d bytes, %d are allowed", len(t.Payload), limit)
	}
	if err == nil {
		return nil // the store checks the rest
	}
	rest := *t
	rest.Payload, rest.Encoding = nil, EncodingJSON
	return errors.Join(err, driver.Prepare(&rest, c.store.Capabilities(), time.Now()))
}

// EnqueueBatch stores any number of tasks, in as many calls to the store as their number and size need. The results are
// parallel to the tasks; one task's failure never affects another. Each task is stored at the level that its options or
// the client ask for.
//
// The error is not nil if a call to the store failed as a whole; then every task without a receipt has an error in its
// result, and enqueueing those again with the ids in their results is safe. See [Client.Enqueue] for the errors.
func (c *Client) EnqueueBatch(ctx context.Context, tasks []NewTask) ([]EnqueueResult, error) {
	enqueue := c.enqueue
	if enqueue == nil {
		enqueue = c.enqueueTasks
	}
	results, err := enqueue(ctx, tasks)
	return results, failed("enqueue batch", err)
}

// enqueueTasks is what the middleware wraps.
func (c *Client) enqueueTasks(ctx context.Context, tasks []NewTask) ([]EnqueueResult, error) {
	if len(tasks) == 1 {
		r, err := c.enqueueOne(ctx, tasks[0].Type, tasks[0].Payload, tasks[0].Options)
		if err == nil || r.ID == "" || isRefusal(err) {
			return []EnqueueResult{{r, err}}, nil
		}
		return []EnqueueResult{{r, err}}, err
	}
	b := newBatch(c, tasks)
	var failures []error
	for _, level := range b.order {
		if err := b.send(ctx, level, b.levels[level]); err != nil {
			b.fail(b.levels[level], err)
			failures = append(failures, err)
		}
	}
	c.compare(ctx, tasks, b.results)
	return b.results, errors.Join(failures...)
}

// isRefusal reports whether an error concerns one task only.
func isRefusal(err error) bool {
	for _, e := range []error{ErrInvalid, ErrDuplicate, ErrQueueClosed, ErrQueueFull, ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// batch is an EnqueueBatch under way.
type batch struct {
	c       *Client
	tasks   []driver.Task
	own     []bool // the id was made here
	results []EnqueueResult
	done    []bool
	levels  map[Durability][]int // indexes of tasks
	order   []Durability         // the levels as they first come
}

func newBatch(c *Client, tasks []NewTask) *batch {
	b := &batch{
		c: c, tasks: make([]driver.Task, len(tasks)), own: make([]bool, len(tasks)),
		results: make([]EnqueueResult, len(tasks)), done: make([]bool, len(tasks)), levels: make(map[Durability][]int),
	}
	for i, n := range tasks {
		t := &b.tasks[i]
		err := c.fill(t, n.Type, n.Payload, n.Options)
		b.results[i].ID = t.ID
		if err != nil {
			b.results[i].Err, b.done[i] = err, true
			continue
		}
		b.own[i] = n.Options == nil || n.Options.ID == ""
		level := c.level(n.Options)
		if b.levels[level] == nil {
			b.order = append(b.order, level)
		}
		b.levels[level] = append(b.levels[level], i)
	}
	return b
}

// send stores the tasks with the given indexes, all of one level. A level that the store can't give refuses its own tasks
// and no others.
func (b *batch) send(ctx context.Context, level Durability, indexes []int) error {
	if _, err := driver.ReachableDurability(b.c.store.Capabilities(), level); err != nil {
		b.fail(indexes, err)
		return nil
	}
	for len(indexes) > 0 {
		n, size := 0, 0
		for n < len(indexes) && n < b.c.limits.MaxBatch {
			size += len(b.tasks[indexes[n]].Payload)
			if n > 0 && size > b.c.limits.MaxBatchBytes {
				break
			}
			n++
		}
		if err := b.sendChunk(ctx, level, indexes[:n], false); err != nil {
			return err
		}
		indexes = indexes[n:]
	}
	return nil
}

// sendChunk stores tasks by one call. repeated says that a full queue has refused them before.
func (b *batch) sendChunk(ctx context.Context, level Durability, indexes []int, repeated bool) error {
	tasks, own := make([]*driver.Task, len(indexes)), !repeated
	for k, i := range indexes {
		tasks[k] = &b.tasks[i]
		own = own && b.own[i]
	}
	results, tries, err := b.c.put(ctx, tasks, level, own)
	if err != nil {
		return err
	}
	full, again := map[string][]int{}, false
	for k, i := range indexes {
		b.results[i], b.done[i] = resultOf(results[k], tasks[k].ID, b.own[i] && (tries > 1 || repeated)), true
		if queue, wait := waitsForRoom(b.results[i].Err); wait && !repeated {
			full[queue], again = append(full[queue], i), true
		}
	}
	if again {
		return b.whenRoom(ctx, level, full)
	}
	return nil
}

// whenRoom enqueues tasks that full queues have refused as there is room for them, one queue after the other.
func (b *batch) whenRoom(ctx context.Context, level Durability, full map[string][]int) error {
	for queue, left := range full {
		var failure error
		err := b.c.rooms.until(ctx, queue, func() bool {
			failure = b.sendChunk(ctx, level, left, true)
			left = slices.DeleteFunc(left, func(i int) bool {
				_, wait := waitsForRoom(b.results[i].Err)
				return !wait
			})
			return failure != nil || len(left) == 0
		})
		if failure != nil {
			return failure
		}
		for _, i := range left {
			b.results[i].Err = gaveUp(b.results[i].Err, err)
		}
	}
	return nil
}

// fail gives those of the tasks that have no result the error.
func (b *batch) fail(indexes []int, err error) {
	for _, i := range indexes {
		if !b.done[i] {
			b.results[i].Err, b.done[i] = err, true
		}
	}
}

// resultOf turns a store's result into a client's. A task whose id was made here and that a repeated call found in the
// store was put there by an earlier try of that call: it is not an existing one.
func resultOf(r driver.EnqueueResult, id string, repeated bool) EnqueueResult {
	if r.Err != nil && r.ID == "" {
		r.ID = id
	}
	if repeated && r.ID == id {
		r.Existing = false
	}
	return EnqueueResult{Receipt{ID: r.ID, State: r.State, Durability: r.Durability, Existing: r.Existing}, r.Err}
}
