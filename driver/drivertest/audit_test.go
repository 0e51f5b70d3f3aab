package drivertest_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
)

// bent is a store whose answers are changed on the way.
type bent struct {
	driver.Store
	records func([]*driver.Record) []*driver.Record
	queues  func([]driver.QueueInfo) []driver.QueueInfo
	workers func([]driver.WorkerStatus) []driver.WorkerStatus
}

func (s *bent) List(ctx context.Context, f driver.Filter, p driver.Page) (*driver.RecordPage, error) {
	page, err := s.Store.List(ctx, f, p)
	if err == nil && s.records != nil {
		page.Records = s.records(page.Records)
	}
	return page, err
}

func (s *bent) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	list, err := s.Store.Queues(ctx, names...)
	if err == nil && s.queues != nil {
		list = s.queues(list)
	}
	return list, err
}

func (s *bent) Workers(ctx context.Context) ([]driver.WorkerStatus, error) {
	list, err := s.Store.Workers(ctx)
	if err == nil && s.workers != nil {
		list = s.workers(list)
	}
	return list, err
}

// populate leaves a store with an available and an active task, each with a unique key.
func populate(t *testing.T, s driver.Store) {
	t.Helper()
	tasks := []*driver.Task{
		{ID: "a", Type: "t", Unique: &driver.Unique{Key: "k-a"}},
		{ID: "b", Type: "t", Unique: &driver.Unique{Key: "k-b"}},
	}
	if _, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	req := driver.FetchRequest{Worker: "w", Lease: time.Hour, Queues: []string{driver.DefaultQueue}, Max: 1}
	if res, err := s.Fetch(t.Context(), req); err != nil || len(res.Claims) != 1 {
		t.Fatalf("fetched %v, %v", res, err)
	}
}

// edit changes the record of a task.
func edit(id string, change func(*driver.Record)) func([]*driver.Record) []*driver.Record {
	return func(list []*driver.Record) []*driver.Record {
		for _, r := range list {
			if r.ID == id {
				change(r)
			}
		}
		return list
	}
}

func editQueue(change func(*driver.QueueInfo)) func([]driver.QueueInfo) []driver.QueueInfo {
	return func(list []driver.QueueInfo) []driver.QueueInfo {
		change(&list[0])
		return list
	}
}

func TestBrokenInvariantsAreFound(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]*bent{
		"is listed twice":               {records: func(l []*driver.Record) []*driver.Record { return slices.Concat(l, l[:1]) }},
		"both own the unique key":       {records: edit("a", func(r *driver.Record) { r.Unique.Key = "k-b" })},
		"unknown state":                 {records: edit("a", func(r *driver.Record) { r.State = "asleep" })},
		"EndedAt is set just":           {records: edit("b", func(r *driver.Record) { r.EndedAt = time.UnixMilli(1).UTC() })},
		"active without a holder":       {records: edit("a", func(r *driver.Record) { r.Token = 0 })},
		"not in UTC milliseconds":       {records: edit("a", func(r *driver.Record) { r.EnqueuedAt = r.EnqueuedAt.Add(time.Microsecond) })},
		"claimed before its time":       {records: edit("a", func(r *driver.Record) { r.DueAt = r.ClaimedAt.Add(time.Second) })},
		"holds other tasks":             {records: edit("a", func(r *driver.Record) { r.Token++ })},
		"which is not registered":       {workers: func([]driver.WorkerStatus) []driver.WorkerStatus { return nil }},
		"counted as held":               {workers: func(l []driver.WorkerStatus) []driver.WorkerStatus { l[0].Held++; return l }},
		"the counts differ":             {queues: editQueue(func(q *driver.QueueInfo) { q.Counts[driver.Completed]++ })},
		"is not among the queues":       {queues: func([]driver.QueueInfo) []driver.QueueInfo { return nil }},
		"the types with live tasks":     {queues: editQueue(func(q *driver.QueueInfo) { q.Types = nil })},
		"the oldest is from":            {queues: editQueue(func(q *driver.QueueInfo) { q.OldestAvailable = time.Time{} })},
		"enqueued and retried are":      {queues: editQueue(func(q *driver.QueueInfo) { q.Totals.Enqueued++ })},
		"are counted as active, 1 are":  {queues: editQueue(func(q *driver.QueueInfo) { q.Types[0].Counts[driver.Active] = 3 })},
		"List and Get differ":           {records: edit("b", func(r *driver.Record) { r.Payload = []byte("9") })},
		"has a result but is not":       {records: edit("b", func(r *driver.Record) { r.Result = []byte("9") })},
		"CancelRequested is set though": {records: edit("b", func(r *driver.Record) { r.CancelRequested = true })},
		"not ended though its crashes":  {records: edit("b", func(r *driver.Record) { r.Crashes = r.CrashLimit })},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			_, s.Store = lossy(t, 0)
			populate(t, s.Store)
			broken, err := drivertest.CheckInvariants(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(broken, func(b string) bool { return strings.Contains(b, want) }) {
				t.Errorf("found %q, want %q", broken, want)
			}
			if broken, err = drivertest.CheckInvariants(t.Context(), s.Store); err != nil || len(broken) > 0 {
				t.Errorf("the sound store has %q, %v", broken, err)
			}
		})
	}
}
