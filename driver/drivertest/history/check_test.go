package history_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

var t0 = time.UnixMilli(1_800_000_000_000).UTC()

// at returns a time so many seconds after the start; the machine's and the store's clock agree in these histories.
func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

func enqueued(s int, d driver.Durability) history.Event {
	return history.Event{Kind: history.EnqueueOK, ID: "a", Called: at(s), At: at(s), Durability: d}
}

func leased(s int, worker string, end int) history.Event {
	return history.Event{Kind: history.Leased, Worker: worker, Called: at(s), At: at(s), LeaseEnd: at(end)}
}

func started(s int, worker string, token driver.Token) history.Event {
	return history.Event{Kind: history.Started, ID: "a", Worker: worker, Token: token, Called: at(s), At: at(s), ClaimedAt: at(s)}
}

func ended(s int, worker string, token driver.Token) history.Event {
	return history.Event{Kind: history.Ended, ID: "a", Worker: worker, Token: token, Called: at(s), At: at(s)}
}

func settled(kind history.Kind, called, s int, worker string, token driver.Token, o driver.Outcome) history.Event {
	return history.Event{Kind: kind, ID: "a", Worker: worker, Token: token, Outcome: o, Called: at(called), At: at(s)}
}

// dumpOf returns a dump whose queue counts what it has.
func dumpOf(records ...*driver.Record) *history.Dump {
	q := driver.QueueInfo{Name: "q", Counts: map[driver.State]int{}}
	d := &history.Dump{Now: at(1000), Records: records}
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
	events []history.Event
	dump   *history.Dump
	opts   history.Options
	want   []history.Rule
}{
	"accepted and gone":                 {events: []history.Event{enqueued(0, "disk")}, dump: dumpOf(), want: []history.Rule{history.NoLoss}},
	"accepted at a level that may lose": {events: []history.Event{enqueued(0, "memory")}, dump: dumpOf(), opts: history.Options{MayLose: []driver.Durability{"memory"}}},
	"accepted above a level that may lose": {events: []history.Event{enqueued(0, "disk")}, dump: dumpOf(),
		opts: history.Options{MayLose: []driver.Durability{"memory"}}, want: []history.Rule{history.NoLoss}},
	"accepted and deleted":                                  {events: []history.Event{enqueued(0, "disk"), {Kind: history.Removed, ID: "a", At: at(1)}}, dump: dumpOf()},
	"completed and pruned":                                  {events: []history.Event{enqueued(0, "disk"), settled(history.SettleAccepted, 2, 2, "w", 1, driver.Complete)}, dump: dumpOf(), opts: history.Options{Prunes: true}},
	"gone before it ended":                                  {events: []history.Event{enqueued(0, "disk")}, dump: dumpOf(), opts: history.Options{Prunes: true}, want: []history.Rule{history.NoLoss}},
	"pruned, its worker was killed while it settled":        {events: []history.Event{enqueued(0, "disk"), started(1, "w", 1), ended(2, "w", 1)}, dump: dumpOf(), opts: history.Options{Prunes: true}},
	"gone, its worker was killed in the handler":            {events: []history.Event{enqueued(0, "disk"), started(1, "w", 1)}, dump: dumpOf(), opts: history.Options{Prunes: true}, want: []history.Rule{history.NoLoss}},
	"gone, its settlement was refused":                      {events: []history.Event{enqueued(0, "disk"), started(1, "w", 1), ended(2, "w", 1), settled(history.SettleRefused, 3, 3, "w", 1, driver.Complete)}, dump: dumpOf(), opts: history.Options{Prunes: true}, want: []history.Rule{history.NoLoss}},
	"without a reply, absent":                               {events: []history.Event{{Kind: history.EnqueueUnknown, ID: "a"}}, dump: dumpOf()},
	"without a reply, present":                              {events: []history.Event{{Kind: history.EnqueueUnknown, ID: "a"}}, dump: dumpOf(record(driver.Completed))},
	"without a reply, twice":                                {events: []history.Event{{Kind: history.EnqueueUnknown, ID: "a"}}, dump: dumpOf(record(driver.Completed), record(driver.Completed)), want: []history.Rule{history.UnknownOutcome}},
	"left over at rest":                                     {dump: dumpOf(record(driver.Retryable)), opts: history.Options{AtRest: true}, want: []history.Rule{history.Liveness}},
	"left over, not at rest":                                {dump: dumpOf(record(driver.Retryable))},
	"held at rest":                                          {dump: dumpOf(record(driver.Active)), opts: history.Options{AtRest: true}, want: []history.Rule{history.Liveness}},
	"overlap within the lease":                              {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), started(9, "x", 2), ended(12, "w", 1)}, dump: dumpOf(record(driver.Completed)), want: []history.Rule{history.Exclusion}},
	"overlap after the lease":                               {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), started(11, "x", 2), ended(12, "w", 1)}, dump: dumpOf(record(driver.Completed))},
	"overlap of a renewed lease":                            {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), leased(5, "w", 15), started(11, "x", 2)}, dump: dumpOf(record(driver.Completed)), want: []history.Rule{history.Exclusion}},
	"after the handler returned":                            {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), ended(2, "w", 1), started(3, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"after a lease was given up":                            {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), {Kind: history.LeaseGivenUp, Worker: "w", At: at(2)}, started(3, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"recovered in time":                                     {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), started(11, "x", 2)}, dump: dumpOf(record(driver.Completed)), opts: history.Options{Recovery: 2 * time.Second}},
	"recovered too late":                                    {events: []history.Event{leased(0, "w", 10), started(1, "w", 1), started(13, "x", 2)}, dump: dumpOf(record(driver.Completed)), opts: history.Options{Recovery: 2 * time.Second}, want: []history.Rule{history.Liveness}},
	"two ends":                                              {events: []history.Event{settled(history.SettleAccepted, 1, 1, "w", 1, driver.Complete), settled(history.SettleAccepted, 5, 5, "x", 2, driver.Discard)}, dump: dumpOf(record(driver.Completed)), want: []history.Rule{history.OneWinner}},
	"two ends of two lives":                                 {events: []history.Event{settled(history.SettleAccepted, 1, 1, "w", 1, driver.Complete), {Kind: history.Retried, ID: "a", At: at(2)}, settled(history.SettleAccepted, 5, 5, "x", 2, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"two ends of an id that was deleted and enqueued again": {events: []history.Event{settled(history.SettleAccepted, 1, 1, "w", 1, driver.Complete), {Kind: history.Removed, ID: "a", At: at(2)}, settled(history.SettleAccepted, 5, 5, "x", 2, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"an end said twice":                                     {events: []history.Event{settled(history.SettleAccepted, 1, 1, "w", 1, driver.Complete), settled(history.SettleAccepted, 2, 2, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"an end that did not happen":                            {events: []history.Event{settled(history.SettleAccepted, 1, 1, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Available)), want: []history.Rule{history.OneWinner}},
	"a late settlement, refused":                            {events: []history.Event{started(1, "w", 1), started(20, "x", 2), settled(history.SettleRefused, 21, 22, "w", 1, driver.Complete)}, dump: dumpOf(record(driver.Completed))},
	"a late settlement, accepted":                           {events: []history.Event{started(1, "w", 1), started(20, "x", 2), settled(history.SettleAccepted, 21, 22, "w", 1, driver.Retry)}, dump: dumpOf(record(driver.Completed)), want: []history.Rule{history.OneWinner}},
	"a settlement under way":                                {events: []history.Event{started(1, "w", 1), settled(history.SettleAccepted, 19, 22, "w", 1, driver.Retry), started(20, "x", 2)}, dump: dumpOf(record(driver.Completed))},
	"as many claims as allowed":                             {events: []history.Event{started(1, "a", 1), started(2, "b", 2), started(3, "c", 3), started(4, "d", 4)}, dump: dumpOf(record(driver.Completed))},
	"more claims than allowed":                              {events: []history.Event{started(1, "a", 1), started(2, "b", 2), started(3, "c", 3), started(4, "d", 4), started(5, "e", 5)}, dump: dumpOf(record(driver.Completed)), want: []history.Rule{history.BoundedAttempts}},
	"a claim run again after its settlement was lost, as its level allows": {events: []history.Event{enqueued(0, "memory"), started(1, "w", 1), settled(history.SettleAccepted, 2, 2, "w", 1, driver.Complete), started(5, "w", 1)},
		dump: dumpOf(record(driver.Completed)), opts: history.Options{MayLose: []driver.Durability{"memory"}}},
	"a claim run again, nothing settled": {events: []history.Event{enqueued(0, "memory"), started(1, "w", 1), started(5, "w", 1)},
		dump: dumpOf(record(driver.Completed)), opts: history.Options{MayLose: []driver.Durability{"memory"}}, want: []history.Rule{history.Exclusion}},
	"an active task without a worker": {dump: func() *history.Dump {
		d := dumpOf(record(driver.Active))
		d.Workers = nil
		return d
	}(), want: []history.Rule{history.NoLeaks}},
	"a counter that counts nothing": {dump: func() *history.Dump {
		d := dumpOf(record(driver.Completed))
		d.Queues[0].Counts[driver.Available] = 1
		return d
	}(), want: []history.Rule{history.Conservation}},
}

func TestSmallHistories(t *testing.T) {
	t.Parallel()
	for name, h := range histories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []history.Rule
			for _, v := range history.Check(h.events, h.dump, &h.opts) {
				got = append(got, v.Rule)
				t.Log(v)
			}
			if diff := cmp.Diff(h.want, got); diff != "" {
				t.Errorf("broken rules (-want +got):\n%s", diff)
			}
		})
	}
}
