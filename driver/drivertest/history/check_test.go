package history

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var t0 = time.UnixMilli(1_800_000_000_000).UTC()

// at returns a time so many seconds after the start; the machine's and the store's clock agree in these histories.
func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

func enqueued(s int, d driver.Durability) Event {
	return Event{Kind: EnqueueOK, ID: "a", Called: at(s), At: at(s), Durability: d}
}

func leased(s int, worker string, end int) Event {
	return Event{Kind: Leased, Worker: worker, Called: at(s), At: at(s), LeaseEnd: at(end)}
}

func started(s int, worker string, token driver.Token) Event {
	return Event{Kind: Started, ID: "a", Worker: worker, Token: token, Called: at(s), At: at(s), ClaimedAt: at(s)}
}

func ended(s int, worker string, token driver.Token) Event {
	return Event{Kind: Ended, ID: "a", Worker: worker, Token: token, Called: at(s), At: at(s)}
}

func settled(kind Kind, called, s int, worker string, token driver.Token, o driver.Outcome) Event {
	return Event{Kind: kind, ID: "a", Worker: worker, Token: token, Outcome: o, Called: at(called), At: at(s)}
}

// dumpOf returns a dump whose queue counts what it has.
func dumpOf(records ...*driver.Record) *Dump {
	q := driver.QueueInfo{Name: "q", Counts: map[driver.State]int{}}
	d := &Dump{Now: at(1000), Records: records}
	for _, r := range records {
		r.Queue, r.MaxAttempts, r.CrashLimit = "q", 2, 2
		q.Counts[r.State]++
		q.Totals.Enqueued++
		switch r.State {
		case driver.Completed:
			q.Totals.Completed++
		case driver.Active:
			d.Workers = append(d.Workers, driver.WorkerStatus{WorkerInfo: driver.WorkerInfo{ID: r.Worker}, Held: 1})
		}
	}
	d.Queues = []driver.QueueInfo{q}
	return d
}

func record(s driver.State) *driver.Record {
	return &driver.Record{Task: driver.Task{ID: "a"}, State: s, Worker: "w", EnqueuedAt: t0, DueAt: t0, EndedAt: at(100)}
}

var histories = map[string]struct {
	events []Event
	dump   *Dump
	opts   Options
	want   []Rule
}{
	"accepted and gone":                 {events: []Event{enqueued(0, "disk")}, dump: dumpOf(), want: []Rule{NoLoss}},
	"accepted at a level that may lose": {events: []Event{enqueued(0, "memory")}, dump: dumpOf(), opts: Options{MayLose: []driver.Durability{"memory"}}},
	"accepted above a level that may lose": {events: []Event{enqueued(0, "disk")}, dump: dumpOf(),
		opts: Options{MayLose: []driver.Durability{"memory"}}, want: []Rule{NoLoss}},
	"accepted and deleted":        {events: []Event{enqueued(0, "disk"), {Kind: Removed, ID: "a", At: at(1)}}, dump: dumpOf()},
	"completed and pruned":        {events: []Event{enqueued(0, "disk"), settled(SettleAccepted, 2, 2, "w", 1, driver.Complete)}, dump: dumpOf(), opts: Options{Prunes: true}},
	"gone before it ended":        {events: []Event{enqueued(0, "disk")}, dump: dumpOf(), opts: Options{Prunes: true}, want: []Rule{NoLoss}},
	"without a reply, absent":     {events: []Event{{Kind: EnqueueUnknown, ID: "a"}}, dump: dumpOf()},
	"without a reply, present":    {events: []Event{{Kind: EnqueueUnknown, ID: "a"}}, dump: dumpOf(record(driver.Completed))},
	"without a reply, twice":      {events: []Event{{Kind: EnqueueUnknown, ID: "a"}}, dump: dumpOf(record(driver.Completed), record(driver.Completed)), want: []Rule{UnknownOutcome}},
	"left over at rest":           {dump: dumpOf(record(driver.Retryable)), opts: Options{AtRest: true}, want: []Rule{Liveness}},
	"left over, not at rest":      {dump: dumpOf(record(driver.Retryable))},
	"held at rest":                {dump: dumpOf(record(driver.Active)), opts: Options{AtRest: true}, want: []Rule{Liveness}},
	"overlap within the lease":    {events: []Event{leased(0, "w", 10), started(1, "w", 1), started(9, "x", 2), ended(12, "w", 1)}, dump: dumpOf(record(driver.Completed)), want: []Rule{Exclusion}},
	"overlap after the lease":     {events: []Event{leased(0, "w", 10), started(1, "w", 1), started(11, "x", 2), ended(12, "w", 1)}, dump: dumpOf(record(driver.Completed))},
	"overlap of a renewed lease":  {events: []Event{leased(0, "w", 10), started(1, "w", 1), leased(5, "w", 15), started(11, "x", 2)}, dump: dumpOf(record(driver.Completed)), want: []Rule{Exclusion}},
	"after the handler returned":  {events: []Event{leased(0, "w", 10), started(1, "w", 1), ended(2, "w", 1), started(3, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"after a lease was given up":  {events: []Event{leased(0, "w", 10), started(1, "w", 1), {Kind: LeaseGivenUp, Worker: "w", At: at(2)}, started(3, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"recovered in time":           {events: []Event{leased(0, "w", 10), started(1, "w", 1), started(11, "x", 2)}, dump: dumpOf(record(driver.Completed)), opts: Options{Recovery: 2 * time.Second}},
	"recovered too late":          {events: []Event{leased(0, "w", 10), started(1, "w", 1), started(13, "x", 2)}, dump: dumpOf(record(driver.Completed)), opts: Options{Recovery: 2 * time.Second}, want: []Rule{Liveness}},
	"two ends":                    {events: []Event{settled(SettleAccepted, 1, 1, "w", 1, driver.Complete), settled(SettleAccepted, 5, 5, "x", 2, driver.Discard)}, dump: dumpOf(record(driver.Completed)), want: []Rule{OneWinner}},
	"two ends of two lives":       {events: []Event{settled(SettleAccepted, 1, 1, "w", 1, driver.Complete), {Kind: Retried, ID: "a", At: at(2)}, settled(SettleAccepted, 5, 5, "x", 2, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"an end said twice":           {events: []Event{settled(SettleAccepted, 1, 1, "w", 1, driver.Complete), settled(SettleAccepted, 2, 2, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"an end that did not happen":  {events: []Event{settled(SettleAccepted, 1, 1, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Available)), want: []Rule{OneWinner}},
	"a late settlement, refused":  {events: []Event{started(1, "w", 1), started(20, "x", 2), settled(SettleRefused, 21, 22, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"a late settlement, accepted": {events: []Event{started(1, "w", 1), started(20, "x", 2), settled(SettleAccepted, 21, 22, "w", 1, driver.Retry)}, dump: dumpOf(record(driver.Completed)), want: []Rule{OneWinner}},
	"a settlement under way":      {events: []Event{started(1, "w", 1), settled(SettleAccepted, 19, 22, "w", 1, driver.Retry), started(20, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"as many claims as allowed":   {events: []Event{started(1, "a", 1), started(2, "b", 2), started(3, "c", 3), started(4, "d", 4)}, dump: dumpOf(record(driver.Completed))},
	"more claims than allowed":    {events: []Event{started(1, "a", 1), started(2, "b", 2), started(3, "c", 3), started(4, "d", 4), started(5, "e", 5)}, dump: dumpOf(record(driver.Completed)), want: []Rule{BoundedAttempts}},
	"an active task without a worker": {dump: func() *Dump {
		d := dumpOf(record(driver.Active))
		d.Workers = nil
		return d
	}(), want: []Rule{NoLeaks}},
	"a counter that counts nothing": {dump: func() *Dump {
		d := dumpOf(record(driver.Completed))
		d.Queues[0].Counts[driver.Available] = 1
		return d
	}(), want: []Rule{Conservation}},
}

func TestSmallHistories(t *testing.T) {
	t.Parallel()
	for name, h := range histories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []Rule
			for _, v := range Check(h.events, h.dump, &h.opts) {
				got = append(got, v.Rule)
				t.Log(v)
			}
			if diff := cmp.Diff(h.want, got); diff != "" {
				t.Errorf("broken rules (-want +got):\n%s", diff)
			}
		})
	}
}
