package drivertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/waggleq/waggle/driver"
)

// The names that the simulation draws from: few, so that they meet.
var (
	simQueues  = []string{"q1", "q2", "q3"}
	simTypes   = []string{"t1", "t2", "t3"}
	simIDs     = []string{"own-1", "own-2", "own-3", "own-4"}
	simKeys    = []string{"k1", "k2", "k\x00\xff"}
	simWorkers = []string{"w1", "w2", "w3"}

	simTaskKeys = []string{"a", "b", "c"}
)

// later returns a time to come that is a number of ticks and a half away.
func later(ticks int) time.Duration { return time.Duration(ticks)*tick - tick/2 }

// dueIn draws a delay. No two tasks of a queue become due in the same tick: which of them came first would be open.
func (s *simulation) dueIn(queue string, taken map[int]bool) time.Duration {
	present := s.model.half(s.now(s.model))
	for _, r := range s.records {
		if r.Queue == queue && s.waits(r) {
			taken[max(present, s.model.half(r.DueAt))] = true
		}
	}
	n := rapid.IntRange(0, 4).Draw(s.T, "ticks to wait")
	slot := func() int { return present + max(0, 2*n-1) }
	for taken[slot()] {
		n++
	}
	taken[slot()] = true
	if n == 0 {
		return 0
	}
	return later(n)
}

func (s *simulation) enqueue() {
	n := rapid.IntRange(1, 4).Draw(s.T, "tasks")
	if s.drops && s.apart() {
		n = 1 // what finds its queue full may come after the others of its call: see driver.FullDropOldest
	}
	mine, theirs := make([]*driver.Task, n), make([]*driver.Task, n)
	taken := map[string]map[int]bool{}
	for i := range n {
		theirs[i] = s.task(taken)
		mine[i] = theirs[i].Clone()
	}
	at := func(of *side, list []*driver.Task) { // times that are absolute are so by each store's own clock
		for _, t := range list {
			if !t.At.IsZero() {
				t.At = s.now(of).Add(t.Delay)
				t.Delay = 0
			}
		}
	}
	at(s.engine, theirs)
	at(s.model, mine)
	got, err := s.engine.Enqueue(s.ctx, theirs, driver.EnqueueOptions{})
	s.must(err)
	for i := range mine {
		mine[i].ID = theirs[i].ID // given by the engine, if there was none
	}
	want, err := s.model.Enqueue(s.ctx, mine, driver.EnqueueOptions{})
	s.must(err)
	if len(got) != n {
		s.Fatalf("Enqueue of %d tasks returned %d results", n, len(got))
	}
	for i := range want {
		s.sameResult(&want[i], &got[i])
	}
}

func (s *simulation) sameResult(want, got *driver.EnqueueResult) {
	s.same("Enqueue: the error", class(want.Err), class(got.Err))
	if (got.Err == nil) != (got.Durability != "") {
		s.Fatalf("Enqueue: durability %q with error %v", got.Durability, got.Err)
	}
	if want.Err == nil || errors.Is(want.Err, driver.ErrDuplicate) {
		s.same("Enqueue: the id", want.ID, got.ID)
	}
	if want.Err == nil {
		s.same("Enqueue: the state", want.State, got.State)
		s.same("Enqueue: existing", want.Existing, got.Existing)
	}
}

// task draws a new task. At, if set, stands for the store's present and Delay.
func (s *simulation) task(taken map[string]map[int]bool) *driver.Task {
	t := &driver.Task{
		Type: draw(s, "type", simTypes...), Queue: draw(s, "queue", simQueues...), Priority: draw(s, "priority", 0, 0, 0, -1, 100),
		Payload: fmt.Appendf(nil, "%d", draw(s, "payload", 1, 10, 12345678)), MaxAttempts: draw(s, "max attempts", 0, 1, 2, 3),
		CrashLimit: draw(s, "crash limit", 0, 1, 2), Hold: s.chance("hold", 10),
	}
	if taken[t.Queue] == nil {
		taken[t.Queue] = map[int]bool{}
	}
	switch draw(s, "id", "given", "new", "new", "own") {
	case "new":
		t.ID = s.number("task-")
	case "own":
		t.ID = draw(s, "own id", simIDs...)
	}
	if s.chance("delayed", 4) {
		t.Delay = s.dueIn(t.Queue, taken[t.Queue])
	}
	if s.chance("expires", 5) {
		t.ExpiresIn = t.Delay + time.Duration(draw(s, "ticks to expiry", 1, 2, 5))*tick - tick/2
		if t.Delay > 0 {
			t.ExpiresIn += tick / 2
		}
	}
	if t.Delay > 0 && s.chance("at", 2) {
		t.At = time.Unix(1, 0)
	}
	if s.chance("labels", 5) {
		t.Tags, t.Headers = some(s, "tags", "red", "blue"), map[string]string{"trace": "1"}
		t.Timeout, t.Encoding = time.Second, driver.EncodingRaw
	}
	if s.chance("unique", 3) && !s.draining(t.Queue) {
		if t.Unique = s.unique(); t.Unique.Until == driver.UntilTTL && t.ID != "" {
			t.ID = s.number("ttl-") // who owns the key of a task that was deleted and is there anew is open
		}
	}
	if s.caps.Keys && s.chance("key", 2) {
		t.Key, t.Weight = draw(s, "task key", simTaskKeys...), draw(s, "weight", 0, 1, 3)
		if s.apart() && (slices.Contains(simIDs, t.ID) || t.Unique != nil) {
			t.Priority = 0 // what is told first is open: a known id, a unique key that is taken, or a priority that can't be
		}
		s.house(t)
	}
	if s.chance("invalid", 25) {
		t.Priority = driver.MaxPriority + 1
	}
	return t
}

// apart reports whether the engine's caller decides what other engines decide within one step of the store: then some
// orders that the contract leaves open are not those of the model.
func (s *simulation) apart() bool { return s.caps.Engine == "redis" }

// house has a task with a key live in the shard of that: an id of another's is refused where a queue orders or limits its keys.
func (s *simulation) house(t *driver.Task) {
	away := func() bool {
		return t.ID != "" && s.keyShard != nil && s.shardOf(t.ID) != s.keyShard(t.Key)
	}
	for t.Unique == nil && away() && strings.HasPrefix(t.ID, "task-") {
		t.ID = s.number("task-")
	}
	if away() {
		t.Key, t.Weight = "", 0
	}
}

func (s *simulation) unique() *driver.Unique {
	u := &driver.Unique{
		Key: draw(s, "unique key", simKeys...), Until: draw(s, "until", "", driver.UntilDone, driver.UntilStarted, driver.UntilTTL),
		OnConflict: draw(s, "on conflict", "", driver.ConflictReturn, driver.ConflictReject, driver.ConflictReplace),
	}
	if u.Until == driver.UntilTTL {
		u.TTL = later(draw(s, "TTL in ticks", 1, 3))
	}
	return u
}

func (s *simulation) draining(queue string) bool {
	return slices.ContainsFunc(s.queues, func(q driver.QueueInfo) bool { return q.Name == queue && q.Config.Draining })
}

// worker draws a worker slot and returns the id of its present life, or sometimes of the one before.
func (s *simulation) worker() string {
	slot := draw(s, "worker", simWorkers...)
	life := s.lives[slot]
	if life > 0 && s.chance("an earlier life", 8) {
		life--
	}
	return fmt.Sprintf("%s.%d", slot, life)
}

func (s *simulation) lease() time.Duration { return later(draw(s, "lease in ticks", 5, 2, 20)) }

// known reports whether the model has a worker registered.
func (s *simulation) known(worker string) bool {
	return slices.ContainsFunc(s.workers(s.model), func(w driver.WorkerStatus) bool { return w.ID == worker })
}

func (s *simulation) register() { s.registerSlot(draw(s, "worker", simWorkers...)) }

func (s *simulation) registerSlot(slot string) {
	id := fmt.Sprintf("%s.%d", slot, s.lives[slot])
	if !s.known(id) && (s.lives[slot] == 0 || !s.chance("under the old id", 6)) {
		s.lives[slot]++
		id = fmt.Sprintf("%s.%d", slot, s.lives[slot])
	}
	info, lease := driver.WorkerInfo{ID: id, Host: "host", PID: 1, Build: draw(s, "build", "v1", "v2"), Queues: simQueues, Slots: 3}, s.lease()
	s.same("Register", class(s.model.Register(s.ctx, info, lease)), class(s.engine.Register(s.ctx, info, lease)))
}

func (s *simulation) unregister() {
	id := s.worker()
	s.same("Unregister", class(s.model.Unregister(s.ctx, id)), class(s.engine.Unregister(s.ctx, id)))
}

func (s *simulation) heartbeat() {
	id, lease := s.worker(), s.lease()
	want, wantErr := s.model.Heartbeat(s.ctx, id, lease)
	got, err := s.engine.Heartbeat(s.ctx, id, lease)
	s.same("Heartbeat: the error", class(wantErr), class(err))
	if err == nil {
		s.same("Heartbeat: the lease", s.model.half(want.LeaseEnd), s.engine.half(got.LeaseEnd))
		s.sameCancels(want.Cancels, got.Cancels)
		s.same("Heartbeat: the directive", want.Directive, got.Directive)
	}
}

func (s *simulation) direct() {
	id, d := s.worker(), draw(s, "directive", driver.DirectServe, driver.DirectQuiet, driver.DirectQuiet, driver.DirectStop, "dance")
	s.same("Direct", class(s.model.Direct(s.ctx, id, d)), class(s.engine.Direct(s.ctx, id, d)))
}

func (s *simulation) sameCancels(model, engine []driver.Ref) {
	s.same("the cancellations", refIDs(model), refIDs(engine))
}

func refIDs(refs []driver.Ref) []string {
	ids := make([]string, len(refs))
	for i, r := range refs {
		ids[i] = r.ID
	}
	slices.Sort(ids)
	return ids
}

func (s *simulation) held() {
	id := s.worker()
	want, wantErr := s.model.Held(s.ctx, id)
	got, err := s.engine.Held(s.ctx, id)
	s.same("Held: the error", class(wantErr), class(err))
	for _, c := range s.sameClaims("Held", id, false, want, got) {
		if !slices.Contains(s.claims, c) {
			s.Fatalf("Held: worker %s holds %s under token %d, which no Fetch gave", id, c.id, c.engine)
		}
	}
}

func (s *simulation) fetch() {
	slot := draw(s, "slot", simWorkers...)
	worker := fmt.Sprintf("%s.%d", slot, s.lives[slot])
	if !s.known(worker) && !s.chance("unregistered", 5) {
		s.registerSlot(slot)
		worker = fmt.Sprintf("%s.%d", slot, s.lives[slot])
	}
	req := driver.FetchRequest{Worker: worker, Lease: s.lease(), Queues: some(s, "queues", simQueues...), Max: draw(s, "max", 5, 2, 1, 1000, 0)}
	if s.chance("declared types", 2) {
		req.Types = some(s, "types", simTypes...)
	}
	if s.caps.Plans && s.shards == 1 && s.chance("plans", 2) {
		req.Plans = 100
	}
	if !s.caps.Ordered && req.Max > 0 {
		req.Max = driver.MaxPage // all: which ones come first is open
	}
	if slices.ContainsFunc(s.queues, func(q driver.QueueInfo) bool { return q.Config.Paused && slices.Contains(req.Queues, q.Name) }) {
		s.maintainBoth() // whether Fetch tidies a paused queue is open
	}
	s.recordExpired()
	defer s.recordExpired()
	want, wantErr := s.model.Fetch(s.ctx, req)
	got, err := s.engine.Fetch(s.ctx, req)
	s.same("Fetch: the error", class(wantErr), class(err))
	if err != nil {
		return
	}
	pairs := s.sameClaims("Fetch", req.Worker, true, want.Claims, got.Claims)
	for _, c := range pairs {
		for _, old := range s.claims {
			if old.id == c.id && old.engine >= c.engine {
				s.Fatalf("Fetch: the token of %s is %d and was %d before", c.id, c.engine, old.engine)
			}
		}
	}
	s.claims = append(s.claims, pairs...)
	s.same("Fetch: the lease", s.model.half(want.LeaseEnd), s.engine.half(got.LeaseEnd))
	s.sameCancels(want.Cancels, got.Cancels)
	s.sameOffers(want.Plans, got.Plans)
	s.load()
	if !slices.ContainsFunc(s.records, s.lapsed) {
		s.same("Fetch: more", want.More, got.More)
	}
	s.checkNextDue(&req, got.NextDue)
}

// checkNextDue checks that a worker is told to come back before the next task of its pairs is due.
func (s *simulation) checkNextDue(req *driver.FetchRequest, next time.Time) {
	for _, r := range s.records {
		waits := r.State == driver.Scheduled || r.State == driver.Retryable
		if !waits || !slices.Contains(req.Queues, r.Queue) || len(req.Types) > 0 && !slices.Contains(req.Types, r.Type) {
			continue
		}
		if next.IsZero() || s.engine.half(next) > s.model.half(r.DueAt) {
			s.Fatalf("Fetch: NextDue is %v, but task %s is due in half tick %d", next, r.ID, s.model.half(r.DueAt))
		}
	}
}

// claim draws a claim: a present one, one whose task runs again, or any of the newest.
func (s *simulation) claim() claimed {
	active := map[string]driver.Token{}
	for _, r := range s.records {
		if r.State == driver.Active {
			active[r.ID] = r.Token
		}
	}
	var present, overtaken []claimed
	for _, c := range s.claims {
		switch active[c.id] {
		case c.model:
			present = append(present, c)
		case 0:
		default:
			overtaken = append(overtaken, c)
		}
	}
	from := s.claims[max(0, len(s.claims)-12):]
	switch kind := draw(s, "claim", "present", "present", "overtaken", "any"); {
	case kind == "present" && len(present) > 0:
		from = present
	case kind == "overtaken" && len(overtaken) > 0:
		from = overtaken
	}
	c := draw(s, "claim", from...)
	if s.chance("another worker", 10) {
		c.worker = s.worker()
	}
	return c
}

func (s *simulation) settle() {
	if len(s.claims) == 0 {
		s.Skip("there are no claims")
	}
	first := s.claim()
	batch := []claimed{first}
	for _, c := range s.claims {
		if c.worker == first.worker && c != first && s.chance("together", 3) {
			batch = append(batch, c)
		}
	}
	mine, theirs := make([]driver.Settlement, len(batch)), make([]driver.Settlement, len(batch))
	taken := map[string]map[int]bool{}
	for i, c := range batch {
		mine[i] = s.settlement(c, taken)
		theirs[i] = mine[i]
		theirs[i].Token = c.engine
	}
	want, err := s.model.Settle(s.ctx, first.worker, mine)
	s.must(err)
	got, err := s.engine.Settle(s.ctx, first.worker, theirs)
	errs := s.perItem(len(batch))(driver.SettleErrors(got, err))
	alive := s.known(first.worker)
	for i := range want {
		if !alive && want[i].Err == nil {
			continue // a repeat from a worker that has left may be told either
		}
		s.same("Settle of "+batch[i].id, class(want[i].Err), class(errs[i]))
		if want[i].Err == nil && !settledAlike(want[i], got[i]) {
			s.Fatalf("Settle of %s has led to %s (%s), want %s (%s)", batch[i].id, got[i].State, got[i].Reason, want[i].State, want[i].Reason)
		}
	}
}

// settledAlike compares what two stores say that a settlement has led to. Of a repeat they may have noticed at different
// moments that the task has become due, or has expired.
func settledAlike(a, b driver.SettleResult) bool {
	byTime := func(r driver.SettleResult) bool {
		return r.State == driver.Scheduled || r.State == driver.Retryable || r.State == driver.Available || r.Reason == driver.ReasonExpired
	}
	return a.State == b.State && (a.Reason == b.Reason || a.State == driver.Cancelled) || byTime(a) && byTime(b)
}

// perItem returns what makes errors of items of an error of the call: a worker that is gone may get either.
func (s *simulation) perItem(n int) func([]error, error) []error {
	return func(errs []error, err error) []error {
		if errors.Is(err, driver.ErrLeaseLost) {
			return slices.Repeat([]error{err}, n)
		}
		s.must(err)
		if len(errs) != n {
			s.Fatalf("%d items got %d errors", n, len(errs))
		}
		return errs
	}
}

var simOutcomes = []driver.Outcome{driver.Complete, driver.Complete, driver.Retry, driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome}

func (s *simulation) settlement(c claimed, taken map[string]map[int]bool) driver.Settlement {
	item := driver.Settlement{ID: c.id, Token: c.model, Outcome: draw(s, "outcome", simOutcomes...), Ran: draw(s, "ran", 0, tick)}
	switch item.Outcome {
	case driver.Complete:
		item.Result, item.ResultEncoding = draw(s, "result", nil, []byte(`"done"`)), driver.EncodingJSON
	case driver.Retry, driver.Discard:
		item.Error, item.Stack = draw(s, "error", "it broke", "it failed"), "main.go:1"
	}
	if item.Outcome == driver.Retry && s.chance("attempts of its own", 8) {
		item.MaxAttempts = draw(s, "attempts", 1, 2, 5)
	}
	if item.Outcome == driver.Retry || item.Outcome == driver.Snooze {
		i := slices.IndexFunc(s.records, func(r *driver.Record) bool { return r.ID == c.id })
		if i < 0 {
			return item // it was removed
		}
		queue := s.records[i].Queue
		if taken[queue] == nil {
			taken[queue] = map[int]bool{}
		}
		item.Delay = s.dueIn(queue, taken[queue])
	}
	return item
}

func (s *simulation) report() {
	if len(s.claims) == 0 {
		s.Skip("there are no claims")
	}
	c := s.claim()
	r := driver.Report{ID: c.id, Token: c.model}
	if s.chance("progress", 2) {
		r.Progress = &driver.Progress{Done: float64(draw(s, "done", 1, 2)), Total: 3, Note: "half"}
	} else {
		r.Logs = []driver.LogLine{{Time: time.Unix(5, 0).UTC(), Level: "INFO", Message: s.number("line "), Attrs: `{"a":1}`}}
	}
	want, err := s.model.Report(s.ctx, c.worker, []driver.Report{r})
	s.must(err)
	r.Token = c.engine
	got := s.perItem(1)(s.engine.Report(s.ctx, c.worker, []driver.Report{r}))
	s.same("Report", classes(want), classes(got))
}

// wait lets time pass. Before two tasks of one queue and of different types would be due at once, both sides promote
// the first, since in which order one call promotes them is open.
func (s *simulation) wait() {
	for range draw(s, "ticks to pass", 1, 1, 2, 2, 4, 10, 200) {
		if s.crowded() {
			s.maintainBoth()
			s.load()
		}
		s.forward(tick)
	}
}

func (s *simulation) crowded() bool {
	next := s.model.half(s.now(s.model)) + 2
	due, first := map[string]int{}, map[string]int{}
	for _, r := range s.records {
		if s.waits(r) {
			if at := s.model.half(r.DueAt); at <= next {
				due[r.Queue]++
				first[r.Queue] = min(first[r.Queue], at-next)
			}
		}
	}
	for queue, n := range due {
		if n > 1 && first[queue] <= -2 {
			return true
		}
	}
	return false
}
