package drivertest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var enqueueCases = []testCase{
	{"defaults are set on the stored task", enqueueDefaults},
	{"every field comes back as it was handed in", enqueueRoundTrip},
	{"a task without an id is given one, written to Task.ID", enqueueGivesID},
	{"ids from NewID are good for one task each, whatever it asks for", enqueueNewID},
	{"a known id is left alone in every state", enqueueExisting},
	{"a known id is left alone even if its queue is draining", enqueueExistingDraining},
	{"the second of two equal ids in a batch is existing", enqueueTwiceInBatch},
	{"one item's failure leaves the others alone", enqueueMixed},
	{"every bad field is refused and nothing is stored", enqueueBadFields},
	{"a batch over the limits is refused as a whole", enqueueBatchLimits},
	{"an empty batch is no error", enqueueNothing},
	{"a payload of the largest size is kept", enqueueLargest},
	{"every offered durability level is reached", enqueueDurability},
	{"a durability level that is not offered stores nothing", enqueueNotDurable},
	{"the state follows from hold and time", enqueueStates},
	{"a delay is counted from the store's present", enqueueDelay},
	{"a time with a fraction of a millisecond is rounded up", enqueueRoundsUp},
	{"slices and maps of the caller are not retained", enqueueNotRetained},
	{"the caller's task is not changed but for its id", enqueueLeavesTask},
	{"what the store returns is the caller's own", enqueueReturnsCopies},
	{"a draining queue refuses tasks, others don't", enqueueDraining},
	{"fields that need a capability are refused without it", enqueueUnsupported},
	{"the tasks of a call become visible in one step", enqueueAtomic},
	{"a call with an ended context can be repeated with the same tasks", enqueueContext},
}

func enqueueDefaults(h *harness) {
	before := h.now()
	r := h.enqueue(&driver.Task{Type: "t"})[0]
	after := h.now()
	h.must(r.Err)
	got := h.get(r.ID)
	want := &driver.Record{
		Task: driver.Task{ID: r.ID, Type: "t", Queue: driver.DefaultQueue, Encoding: driver.EncodingJSON,
			MaxAttempts: driver.DefaultMaxAttempts, CrashLimit: driver.DefaultCrashLimit},
		State: driver.Available, EnqueuedAt: got.EnqueuedAt, DueAt: got.EnqueuedAt,
	}
	if diff := cmp.Diff(want, got, equateEmpty); diff != "" {
		h.Errorf("record (-want +got):\n%s", diff)
	}
	if got.EnqueuedAt.Before(before) || got.EnqueuedAt.After(after) {
		h.Errorf("enqueued at %v, want between %v and %v", got.EnqueuedAt, before, after)
	}
}

// full returns a task with all fields set that every engine supports.
func full(id string) *driver.Task {
	return &driver.Task{
		ID: id, Type: "email.welcome", Queue: "mail:eu", Encoding: driver.EncodingRaw, Payload: []byte{0, 1, 0xff, '"', '\n'},
		Headers: map[string]string{"trace": "1-2", "city": "Zürich", "empty": ""}, Tags: []string{"b", "a.c"}, Priority: -7,
		MaxAttempts: 3, CrashLimit: 2, Timeout: 90 * time.Second,
		Unique: &driver.Unique{Key: "k\x00\xff" + id, Until: driver.UntilTTL, TTL: time.Hour, OnConflict: driver.ConflictReject},
	}
}

func enqueueRoundTrip(h *harness) {
	at := h.now().Add(time.Hour)
	plain, later := full("plain"), full("later")
	later.At, later.ExpiresAt = at, at.Add(time.Hour)
	h.add(plain.Clone(), later.Clone())
	for _, want := range []*driver.Task{plain, later} {
		got := h.get(want.ID)
		if diff := cmp.Diff(want, &got.Task, equateEmpty); diff != "" {
			h.Errorf("stored task %s (-want +got):\n%s", want.ID, diff)
		}
	}
	if got := h.get("later"); !got.DueAt.Equal(at) {
		h.Errorf("due at %v, want %v", got.DueAt, at)
	}
}

func enqueueGivesID(h *harness) {
	a, b := &driver.Task{Type: "t"}, &driver.Task{Type: "t"}
	results := h.enqueue(a, b)
	if a.ID == "" || a.ID == b.ID || a.ID != results[0].ID || b.ID != results[1].ID {
		h.Fatalf("ids %q and %q on the tasks, %q and %q in the results", a.ID, b.ID, results[0].ID, results[1].ID)
	}
	h.wantState(driver.Available, a.ID, b.ID)
}

// enqueueNewID enqueues tasks of each kind by ids that the store has made before.
func enqueueNewID(h *harness) {
	tasks := []*driver.Task{{Type: "t"}, {Queue: "q", Type: "t"}, {Type: "u", Unique: &driver.Unique{Key: "k"}}}
	if h.caps.Keys {
		tasks = append(tasks, &driver.Task{Type: "t", Key: "a"}, &driver.Task{Queue: "limited", Type: "t", Key: "a"})
		h.setQueue("limited", driver.QueuePatch{Limits: &[]driver.Limit{{Concurrency: 1}, {Type: "u", Rate: 10, Per: time.Second}}})
	}
	tasks = append(tasks, &driver.Task{Queue: "limited", Type: "t"}, &driver.Task{Queue: "limited", Type: "u"})
	seen := map[string]bool{}
	for _, t := range tasks {
		for range 3 {
			id := h.store.NewID(t)
			if err := driver.CheckName("task id", id, driver.MaxIDLen); err != nil || seen[id] {
				h.Fatalf("id %q for %+v: %v, given before: %v", id, t, err, seen[id])
			}
			seen[id], t.ID = true, id
		}
	}
	for i, r := range h.enqueue(tasks...) {
		if r.Err != nil || r.Existing || r.ID != tasks[i].ID {
			h.Errorf("task %d of %+v: %+v", i, tasks[i], r)
		}
	}
}

func enqueueExisting(h *harness) {
	for _, s := range driver.States {
		id := h.put(s, task(string(s), nil))
		before := h.get(id)
		r := h.enqueue(&driver.Task{ID: id, Type: "other", Queue: "other", Payload: []byte("2")})[0]
		want := driver.EnqueueResult{ID: id, State: s, Existing: true, Durability: r.Durability}
		if r != want {
			h.Errorf("%s: got %+v, want %+v", s, r, want)
		}
		if diff := cmp.Diff(before, h.get(id)); diff != "" {
			h.Errorf("the %s task changed (-before +after):\n%s", s, diff)
		}
	}
}

func enqueueExistingDraining(h *harness) {
	h.add(task("a", nil))
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Draining: new(true)})
	if r := h.enqueue(task("a", nil))[0]; r.Err != nil || !r.Existing || r.State != driver.Available {
		h.Errorf("got %+v, want the existing task", r)
	}
}

func enqueueTwiceInBatch(h *harness) {
	results := h.enqueue(task("a", nil), task("a", nil))
	if results[0].Existing || !results[1].Existing || results[1].ID != "a" || results[1].State != driver.Available {
		h.Errorf("got %+v", results)
	}
}

func enqueueMixed(h *harness) {
	h.add(task("old", nil), task("owner", func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k"} }))
	results := h.enqueue(
		task("ok-1", nil),
		task("bad name", nil),
		task("old", nil),
		task("dup", func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", OnConflict: driver.ConflictReject} }),
		task("bad-json", func(t *driver.Task) { t.Payload = []byte("{") }),
		task("ok-2", nil))
	for i, want := range []error{nil, driver.ErrInvalid, nil, driver.ErrDuplicate, driver.ErrInvalid, nil} {
		h.wantErr(fmt.Sprintf("item %d", i), results[i].Err, want)
		if want != nil && results[i].Durability != "" {
			h.Errorf("item %d was refused but has durability %q", i, results[i].Durability)
		}
	}
	if results[3].ID != "owner" {
		h.Errorf("the duplicate names %q as the owner, want owner", results[3].ID)
	}
	h.wantState(driver.Available, "ok-1", "ok-2", "old", "owner")
	for _, id := range []string{"dup", "bad-json"} {
		if h.find(id) != nil {
			h.Errorf("the refused task %s is stored", id)
		}
	}
}

// manyHeaders returns a million headers.
func manyHeaders() map[string]string {
	headers := make(map[string]string, 1_000_000)
	for i := range 1_000_000 {
		headers[strconv.Itoa(i)] = ""
	}
	return headers
}

var badFields = map[string]func(*driver.Task){
	"no type":             func(t *driver.Task) { t.Type = "" },
	"type with space":     func(t *driver.Task) { t.Type = "a b" },
	"type with NUL":       func(t *driver.Task) { t.Type = "a\x00" },
	"id with slash":       func(t *driver.Task) { t.ID = "../a" },
	"long id":             func(t *driver.Task) { t.ID = strings.Repeat("a", driver.MaxIDLen+1) },
	"queue with brace":    func(t *driver.Task) { t.Queue = "{q}" },
	"queue not UTF-8":     func(t *driver.Task) { t.Queue = "\xff" },
	"type of a megabyte":  func(t *driver.Task) { t.Type = strings.Repeat("a", 1<<20) },
	"type with a newline": func(t *driver.Task) { t.Type = "a\nb" },
	"queue with escapes":  func(t *driver.Task) { t.Queue = "..%2f%0a" },
	"bad tag":             func(t *driver.Task) { t.Tags = []string{"<b>"} },
	"too many tags":       func(t *driver.Task) { t.Tags = make([]string, driver.MaxTags+1) },
	"broken JSON":         func(t *driver.Task) { t.Payload = []byte(`{"a":`) },
	"nested JSON":         func(t *driver.Task) { t.Payload = []byte(strings.Repeat("[", 400_000) + strings.Repeat("]", 400_000)) },
	"a million headers":   func(t *driver.Task) { t.Headers = manyHeaders() },
	"unknown encoding":    func(t *driver.Task) { t.Encoding = "xml" },
	"empty header name":   func(t *driver.Task) { t.Headers = map[string]string{"": "v"} },
	"header with NUL":     func(t *driver.Task) { t.Headers = map[string]string{"k": "\x00"} },
	"headers too large":   func(t *driver.Task) { t.Headers = map[string]string{"k": strings.Repeat("v", driver.MaxHeaderBytes)} },
	"priority too high":   func(t *driver.Task) { t.Priority = driver.MaxPriority + 1 },
	"priority too low":    func(t *driver.Task) { t.Priority = -driver.MaxPriority - 1 },
	"negative attempts":   func(t *driver.Task) { t.MaxAttempts = -1 },
	"negative crashes":    func(t *driver.Task) { t.CrashLimit = -1 },
	"negative timeout":    func(t *driver.Task) { t.Timeout = -1 },
	"negative delay":      func(t *driver.Task) { t.Delay = -1 },
	"negative expiry":     func(t *driver.Task) { t.ExpiresIn = -1 },
	"year 1":              func(t *driver.Task) { t.At = time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC) },
	"year 10000":          func(t *driver.Task) { t.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	"expiry before start": func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Hour, time.Minute },
	"empty unique key":    func(t *driver.Task) { t.Unique = &driver.Unique{} },
	"long unique key":     func(t *driver.Task) { t.Unique = &driver.Unique{Key: strings.Repeat("k", driver.MaxUniqueLen+1)} },
	"ttl of zero":         func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", Until: driver.UntilTTL} },
	"negative ttl":        func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", Until: driver.UntilTTL, TTL: -1} },
	"ttl over a century": func(t *driver.Task) {
		t.Unique = &driver.Unique{Key: "k", Until: driver.UntilTTL, TTL: 101 * 365 * 24 * time.Hour}
	},
	"unknown until":       func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", Until: "noon"} },
	"unknown on conflict": func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", OnConflict: "fight"} },
}

func enqueueBadFields(h *harness) {
	for name, edit := range badFields {
		r := h.enqueue(task("bad", edit))[0]
		h.wantErr(name, r.Err, driver.ErrInvalid)
	}
	if n := len(h.listAll(driver.Filter{})); n != 0 {
		h.Errorf("%d tasks are stored, want none", n)
	}
}

func enqueueBatchLimits(h *harness) {
	half := h.caps.Limit.MaxBatchBytes/2 + 1
	large := func(id string) *driver.Task {
		return task(id, func(t *driver.Task) { t.Encoding, t.Payload = driver.EncodingRaw, make([]byte, half) })
	}
	for name, batch := range map[string][]*driver.Task{
		"too many tasks": tasks("a", h.caps.Limit.MaxBatch+1),
		"too many bytes": {large("b-1"), large("b-2")},
		"a nil task":     {task("c", nil), nil},
	} {
		results, err := h.store.Enqueue(h.ctx(), batch, driver.EnqueueOptions{})
		h.wantErr(name, err, driver.ErrInvalid)
		if results != nil {
			h.Errorf("%s: got results with the error", name)
		}
	}
	if n := len(h.listAll(driver.Filter{})); n != 0 {
		h.Errorf("%d tasks are stored, want none", n)
	}
	h.add(tasks("ok", h.caps.Limit.MaxBatch)...)
}

func enqueueNothing(h *harness) {
	if results := h.enqueue(); len(results) != 0 {
		h.Errorf("got %d results", len(results))
	}
}

func enqueueLargest(h *harness) {
	size := h.caps.Limit.MaxPayload
	payload := make([]byte, size+1)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	results := h.enqueue(
		&driver.Task{ID: "fits", Type: "t", Encoding: driver.EncodingRaw, Payload: payload[:size]},
		&driver.Task{ID: "over", Type: "t", Encoding: driver.EncodingRaw, Payload: payload})
	h.wantErr("the largest payload", results[0].Err, nil)
	h.wantErr("one byte more", results[1].Err, driver.ErrInvalid)
	if got := h.get("fits"); string(got.Payload) != string(payload[:size]) {
		h.Error("the stored payload differs")
	}
}

func enqueueDurability(h *harness) {
	levels := append([]driver.Durability{""}, h.caps.Durability...)
	for i, level := range levels {
		results, err := h.store.Enqueue(h.ctx(), []*driver.Task{task(fmt.Sprint("d-", i), nil)}, driver.EnqueueOptions{Durability: level})
		h.must(err)
		if got := results[0].Durability; got == "" || !got.Reaches(level) {
			h.Errorf("asked for %q, got %q", level, got)
		}
		if got := results[0].Durability; level == "" && !got.Reaches(h.caps.DefaultDurability) {
			h.Errorf("asked for the default %q, got %q", h.caps.DefaultDurability, got)
		}
	}
}

func enqueueNotDurable(h *harness) {
	strongest := h.caps.Durability[len(h.caps.Durability)-1]
	for _, level := range driver.Durabilities {
		if !strongest.Reaches(level) {
			_, err := h.store.Enqueue(h.ctx(), tasks("n", 2), driver.EnqueueOptions{Durability: level})
			h.wantErr(string(level), err, driver.ErrUnsupported)
		}
	}
	_, err := h.store.Enqueue(h.ctx(), tasks("n", 2), driver.EnqueueOptions{Durability: "stone"})
	h.wantErr("an unknown level", err, driver.ErrInvalid)
	if n := len(h.listAll(driver.Filter{})); n != 0 {
		h.Errorf("%d tasks are stored, want none", n)
	}
}

func enqueueStates(h *harness) {
	now := h.now()
	results := h.enqueue(
		task("plain", nil),
		task("past", func(t *driver.Task) { t.At = now.Add(-time.Hour) }),
		task("epoch", func(t *driver.Task) { t.At = time.UnixMilli(0) }),
		task("delayed", func(t *driver.Task) { t.Delay = time.Hour }),
		task("later", func(t *driver.Task) { t.At = now.Add(time.Hour) }),
		task("held", func(t *driver.Task) { t.Hold = true }),
		task("held-later", func(t *driver.Task) { t.Hold, t.Delay = true, time.Hour }))
	for i, want := range []driver.State{driver.Available, driver.Available, driver.Available, driver.Scheduled, driver.Scheduled, driver.Pending, driver.Pending} {
		r := results[i]
		if r.Err != nil || r.State != want {
			h.Errorf("%s: got %q and error %v, want %q", r.ID, r.State, r.Err, want)
		}
		h.wantState(want, r.ID)
	}
}

func enqueueDelay(h *harness) {
	before := h.now()
	h.add(task("a", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Hour, 2*time.Hour }))
	after, r := h.now(), h.get("a")
	check := func(what string, got time.Time, d time.Duration) {
		if got.Before(before.Add(d)) || got.After(after.Add(d)) {
			h.Errorf("%s is %v, want %v after the store's present (%v to %v)", what, got, d, before, after)
		}
	}
	check("At", r.At, time.Hour)
	check("DueAt", r.DueAt, time.Hour)
	check("ExpiresAt", r.ExpiresAt, 2*time.Hour)
	if r.Delay != 0 || r.ExpiresIn != 0 {
		h.Errorf("the record has Delay %v and ExpiresIn %v, want 0", r.Delay, r.ExpiresIn)
	}
}

func enqueueRoundsUp(h *harness) {
	at := h.now().Add(time.Hour)
	zone := time.FixedZone("east", 3600)
	h.add(task("a", func(t *driver.Task) { t.At = at.Add(time.Nanosecond).In(zone) }))
	r := h.get("a")
	if want := at.Add(time.Millisecond); !r.At.Equal(want) || !r.DueAt.Equal(want) || r.At.Location() != time.UTC {
		h.Errorf("At is %v and DueAt %v, want %v", r.At, r.DueAt, want)
	}
}

func enqueueNotRetained(h *harness) {
	mine := full("a")
	batch := []*driver.Task{mine}
	h.must(h.enqueue(batch...)[0].Err)
	mine.Payload[0], mine.Headers["trace"], mine.Tags[0], mine.Unique.Key = 'X', "changed", "changed", "changed"
	batch[0] = nil
	if diff := cmp.Diff(full("a"), &h.get("a").Task, equateEmpty); diff != "" {
		h.Errorf("changing the task after the call changed the store (-want +got):\n%s", diff)
	}
}

func enqueueLeavesTask(h *harness) {
	shared := &driver.Unique{Key: "shared"}
	mine := &driver.Task{Type: "t", Delay: time.Hour, ExpiresIn: 2 * time.Hour, Unique: shared, Headers: map[string]string{"a": "b"}}
	want := mine.Clone()
	h.must(h.enqueue(mine)[0].Err)
	want.ID = mine.ID
	if diff := cmp.Diff(want, mine); diff != "" {
		h.Errorf("the caller's task changed (-want +got):\n%s", diff)
	}
	if *shared != (driver.Unique{Key: "shared"}) {
		h.Errorf("the caller's Unique changed to %+v", *shared)
	}
}

func enqueueReturnsCopies(h *harness) {
	h.add(full("a"))
	for _, r := range []*driver.Record{h.get("a"), h.listAll(driver.Filter{})[0]} {
		r.Payload[0], r.Headers["trace"], r.Tags[0] = 'X', "changed", "changed"
		r.Unique.Key, r.State = "changed", driver.Completed
	}
	h.register("w")
	c := h.claimOne("w", "a", "mail:eu")
	if diff := cmp.Diff(full("a"), &c.Task, equateEmpty); diff != "" {
		h.Errorf("changing what was returned changed the store (-want +got):\n%s", diff)
	}
	c.Payload[0] = 'X'
	if held, err := h.store.Held(h.ctx(), "w"); err != nil || len(held) != 1 || held[0].Payload[0] != full("a").Payload[0] {
		h.Errorf("changing a claim changed the store: %v %v", held, err)
	}
}

func enqueueDraining(h *harness) {
	h.setQueue("closing", driver.QueuePatch{Draining: new(true)})
	inQueue := func(q string) func(*driver.Task) { return func(t *driver.Task) { t.Queue = q } }
	results := h.enqueue(task("a", inQueue("open")), task("b", inQueue("closing")), task("c", inQueue("open")))
	h.wantErr("a", results[0].Err, nil)
	h.wantErr("b", results[1].Err, driver.ErrQueueClosed)
	h.wantErr("c", results[2].Err, nil)
	h.setQueue("closing", driver.QueuePatch{Draining: new(false)})
	h.add(task("b", inQueue("closing")))
}

func enqueueUnsupported(h *harness) {
	for name, c := range map[string]struct {
		offered bool
		edit    func(*driver.Task)
	}{
		"key":    {h.caps.Keys, func(t *driver.Task) { t.Key = "tenant" }},
		"weight": {h.caps.Keys, func(t *driver.Task) { t.Weight = 2 }},
		"plan": {h.caps.Plans, func(t *driver.Task) {
			t.Plan = &driver.TaskPlan{PlanRef: driver.PlanRef{Kind: "k", Name: "n"}, Step: "s"}
			t.ID = driver.PlanTaskID(t.Plan.PlanRef, "s")
		}},
	} {
		if c.offered {
			continue
		}
		results := h.enqueue(task("no", c.edit), task("yes-"+name, nil))
		h.wantErr(name, results[0].Err, driver.ErrUnsupported)
		h.wantErr(name+", the next item", results[1].Err, nil)
		if h.find("no") != nil {
			h.Errorf("%s: the refused task is stored", name)
		}
	}
}

func enqueueAtomic(h *harness) {
	if !h.caps.Ordered {
		h.Skip("a store of several shards makes a call visible shard by shard")
	}
	const n = 200
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{})
	done := make(chan error, 1)
	go func() {
		_, err := h.store.Enqueue(h.limit, tasks("a", n), driver.EnqueueOptions{})
		done <- err
	}()
	for seen := 0; seen != n; {
		seen = h.queue(driver.DefaultQueue).Counts[driver.Available]
		if seen != 0 && seen != n {
			h.Fatalf("%d tasks of a batch of %d are visible", seen, n)
		}
		select {
		case err := <-done:
			h.must(err)
			done = nil
		default:
		}
	}
}

func enqueueContext(h *harness) {
	ctx, cancel := context.WithCancel(h.ctx())
	cancel()
	mine := &driver.Task{Type: "t"}
	if _, err := h.store.Enqueue(ctx, []*driver.Task{mine}, driver.EnqueueOptions{}); err != nil {
		h.wantErr("a call with an ended context", err, context.Canceled)
	}
	h.must(h.enqueue(mine)[0].Err)
	if n := len(h.listAll(driver.Filter{})); n != 1 {
		h.Errorf("%d tasks are stored, want 1", n)
	}
}
