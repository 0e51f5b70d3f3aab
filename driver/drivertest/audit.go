package drivertest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle/driver"
)

// equateEmpty takes nil and empty slices and maps as equal, as the contract does not tell them apart, and compares bytes
// at once: payloads can have a million.
var equateEmpty = gocmp.Options{
	cmpopts.EquateEmpty(),
	gocmp.FilterValues(func(x, y []byte) bool { return len(x)+len(y) > 0 }, gocmp.Comparer(bytes.Equal)),
}

// Audit fails t for every finding of Store.Audit and for every invariant of the contract that what the Inspector shows
// breaks. The store must be at rest: nobody else may use it meanwhile.
func Audit(t testing.TB, s driver.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	findings, err := s.Audit(ctx, false)
	if err != nil {
		t.Errorf("audit: %v", err)
		return
	}
	for _, f := range findings {
		t.Errorf("audit: %s %s: %s", f.Kind, f.ID, f.Detail)
	}
	broken, err := CheckInvariants(ctx, s)
	if err != nil {
		t.Errorf("audit: %v", err)
	}
	for _, b := range broken {
		t.Errorf("audit: %s", b)
	}
}

// CheckInvariants returns a sentence for each invariant that a store at rest breaks, as far as its Inspector shows.
func CheckInvariants(ctx context.Context, s driver.Store) ([]string, error) {
	records, err := dump(ctx, s)
	if err != nil {
		return nil, err
	}
	a := auditor{records: records}
	for _, check := range []func(context.Context, driver.Store) error{a.checkRecords, a.checkQueues, a.checkWorkers, a.checkGet} {
		if err := check(ctx, s); err != nil {
			return nil, err
		}
	}
	return a.broken, nil
}

// dump returns all records of a store.
func dump(ctx context.Context, s driver.Store) ([]*driver.Record, error) {
	var records []*driver.Record
	for cursor := ""; ; {
		page, err := s.List(ctx, driver.Filter{}, driver.Page{Cursor: cursor, Size: driver.MaxPage})
		if err != nil {
			return nil, err
		}
		records = append(records, page.Records...)
		if cursor = page.Next; cursor == "" {
			return records, nil
		}
	}
}

type auditor struct {
	records []*driver.Record
	broken  []string
}

func (a *auditor) failf(format string, args ...any) {
	a.broken = append(a.broken, fmt.Sprintf(format, args...))
}

func (a *auditor) checkRecords(context.Context, driver.Store) error {
	seen, owner := map[string]bool{}, map[string]string{}
	for _, r := range a.records {
		if seen[r.ID] {
			a.failf("task %s is listed twice", r.ID)
		}
		seen[r.ID] = true
		for _, broken := range recordFaults(r) {
			a.failf("task %s (%s): %s", r.ID, r.State, broken)
		}
		if u := r.Unique; u != nil && u.Until == driver.UntilDone && !r.State.Ended() {
			if other, taken := owner[u.Key]; taken {
				a.failf("tasks %s and %s both own the unique key %q", other, r.ID, u.Key)
			}
			owner[u.Key] = r.ID
		}
	}
	return nil
}

// recordFaults returns what does not fit together within one record.
func recordFaults(r *driver.Record) []string {
	var faults []string
	check := func(ok bool, what string) {
		if !ok {
			faults = append(faults, what)
		}
	}
	needsReason := r.State == driver.Cancelled || r.State == driver.Discarded
	check(r.State.Valid(), "unknown state")
	check(r.State.Ended() == !r.EndedAt.IsZero(), "EndedAt is set just for ended tasks")
	check(needsReason == (r.Reason != ""), fmt.Sprintf("reason %q", r.Reason))
	check(r.State == driver.Active || !r.CancelRequested, "CancelRequested is set though nobody holds the task")
	check(r.State != driver.Active || r.Worker != "" && r.Token > 0 && !r.ClaimedAt.IsZero() && r.Attempt > 0, "active without a holder")
	check(r.State == driver.Completed || len(r.Result) == 0, "has a result but is not completed")
	check(r.Attempt >= 0 && r.Attempt <= mostAttempts(r), fmt.Sprintf("attempt %d of %d", r.Attempt, r.MaxAttempts))
	check(r.Crashes >= 0 && r.Crashes <= r.CrashLimit, fmt.Sprintf("crash %d of %d", r.Crashes, r.CrashLimit))
	check(r.State.Ended() || r.Crashes < r.CrashLimit, "not ended though its crashes are spent")
	check(len(r.Attempts) <= driver.MaxHistory, "history too long")
	check(r.Delay == 0 && r.ExpiresIn == 0, "relative times in a record")
	check(r.ID != "" && r.Type != "" && r.Queue != "" && r.MaxAttempts > 0 && r.CrashLimit > 0 && r.Encoding != "", "defaults not set")
	check(!r.EnqueuedAt.IsZero() && (r.State == driver.Pending || !r.DueAt.IsZero()), "times not set")
	check(r.State != driver.Active || !r.ClaimedAt.Before(r.DueAt), "claimed before its time")
	for _, v := range []time.Time{r.EnqueuedAt, r.DueAt, r.ClaimedAt, r.EndedAt, r.At, r.ExpiresAt} {
		check(v.IsZero() || v.Location() == time.UTC && v.Equal(v.Truncate(time.Millisecond)), fmt.Sprintf("%v is not in UTC milliseconds", v))
	}
	return faults
}

func (a *auditor) checkQueues(ctx context.Context, s driver.Store) error {
	queues, err := s.Queues(ctx)
	if err != nil {
		return err
	}
	if !slices.IsSortedFunc(queues, func(x, y driver.QueueInfo) int { return cmp.Compare(x.Name, y.Name) }) {
		a.failf("the queues are not sorted by name")
	}
	listed := map[string][]*driver.Record{}
	for _, r := range a.records {
		listed[r.Queue] = append(listed[r.Queue], r)
	}
	for _, q := range queues {
		a.checkQueue(q, listed[q.Name])
		delete(listed, q.Name)
	}
	for name := range listed {
		a.failf("queue %s has tasks but is not among the queues", name)
	}
	return nil
}

func (a *auditor) checkQueue(q driver.QueueInfo, records []*driver.Record) {
	counts, types := map[driver.State]int{}, map[string]map[driver.State]int{}
	for _, s := range driver.States {
		counts[s] = 0
	}
	live := 0
	for _, r := range records {
		counts[r.State]++
		if types[r.Type] == nil {
			types[r.Type] = map[driver.State]int{}
		}
		types[r.Type][r.State]++
		if !r.State.Ended() {
			live++
		}
	}
	if diff := gocmp.Diff(counts, q.Counts); diff != "" {
		a.failf("queue %s: the counts differ from what is listed (-listed +counted):\n%s", q.Name, diff)
	}
	a.checkTypes(q, types)
	if (counts[driver.Available] == 0) != q.OldestAvailable.IsZero() {
		a.failf("queue %s: %d tasks are available and the oldest is from %v", q.Name, counts[driver.Available], q.OldestAvailable)
	}
	t := q.Totals
	if in, out := t.Enqueued+t.Retried, t.Completed+t.Cancelled+t.Discarded+int64(live)+t.DeletedLive; in != out {
		a.failf("queue %s: enqueued and retried are %d, ended, live and deleted are %d: %+v with %d live", q.Name, in, out, t, live)
	}
}

func (a *auditor) checkTypes(q driver.QueueInfo, listed map[string]map[driver.State]int) {
	var want []string
	for name, counts := range listed {
		if slices.ContainsFunc(slices.Collect(maps.Keys(counts)), func(s driver.State) bool { return !s.Ended() }) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	var got []string
	for _, t := range q.Types {
		got = append(got, t.Type)
		for _, s := range driver.States {
			if !s.Ended() && t.Counts[s] != listed[t.Type][s] {
				a.failf("queue %s, type %s: %d tasks are counted as %s, %d are listed", q.Name, t.Type, t.Counts[s], s, listed[t.Type][s])
			}
		}
	}
	if !slices.Equal(want, got) {
		a.failf("queue %s: the types with live tasks are %v, want %v", q.Name, got, want)
	}
}

func (a *auditor) checkWorkers(ctx context.Context, s driver.Store) error {
	workers, err := s.Workers(ctx)
	if err != nil {
		return err
	}
	if !slices.IsSortedFunc(workers, func(x, y driver.WorkerStatus) int { return cmp.Compare(x.ID, y.ID) }) {
		a.failf("the workers are not sorted by id")
	}
	active := map[string]map[string]driver.Token{}
	for _, r := range a.records {
		if r.State == driver.Active {
			if active[r.Worker] == nil {
				active[r.Worker] = map[string]driver.Token{}
			}
			active[r.Worker][r.ID] = r.Token
		}
	}
	for _, w := range workers {
		claims, err := s.Held(ctx, w.ID)
		if err != nil {
			return fmt.Errorf("what does worker %s hold: %w", w.ID, err)
		}
		held := map[string]driver.Token{}
		for _, c := range claims {
			held[c.ID] = c.Token
		}
		if diff := gocmp.Diff(active[w.ID], held, equateEmpty); diff != "" {
			a.failf("worker %s holds other tasks than are active in its name (-active +held):\n%s", w.ID, diff)
		}
		if w.Held != len(held) {
			a.failf("worker %s: %d tasks are counted as held, it holds %d", w.ID, w.Held, len(held))
		}
		delete(active, w.ID)
	}
	for w, tasks := range active {
		a.failf("%d tasks are active in the name of %s, which is not registered", len(tasks), w)
	}
	return nil
}

// checkGet compares what Get and List say of the same tasks, for the first few hundred.
func (a *auditor) checkGet(ctx context.Context, s driver.Store) error {
	sample := a.records[:min(len(a.records), 300)]
	ids := make([]string, len(sample))
	for i, r := range sample {
		ids[i] = r.ID
	}
	got, err := s.Get(ctx, ids)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(sample, got) { // much cheaper, and nearly always enough
		return nil
	}
	if diff := gocmp.Diff(sample, got, equateEmpty); diff != "" {
		a.failf("List and Get differ (-list +get):\n%s", diff)
	}
	return nil
}

// mostAttempts bounds the number of a task's attempt: its own MaxAttempts, or what settlements with a number of theirs have
// let it fail.
func mostAttempts(r *driver.Record) int {
	if len(r.Attempts) >= driver.MaxHistory {
		return driver.MaxAttemptsCap // not all failures are in the history
	}
	failures := 0
	for _, a := range r.Attempts {
		if a.Outcome == driver.Retry {
			failures++
		}
	}
	return max(r.MaxAttempts, failures+1)
}
