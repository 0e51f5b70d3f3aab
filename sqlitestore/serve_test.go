package sqlitestore

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// ask returns what the writer says between two transactions.
func ask[T any](s *Store, f func(*writer) T) T {
	answer := make(chan T, 1)
	s.queue.call(func(w *writer) { answer <- f(w) })
	return <-answer
}

func commits(s *Store) int { return ask(s, func(w *writer) int { return w.commits }) }

// narrowed is a store with n tasks in a queue that runs one at a time, of which worker w has the first.
func narrowed(t *testing.T, n int) (*Store, driver.Claim) {
	t.Helper()
	s := open(t, dbPath(t), nil)
	register(t, s, "w")
	_, err := s.SetQueue(t.Context(), "default", driver.QueuePatch{Limits: &[]driver.Limit{{Concurrency: 1}}})
	must(t, err)
	add(t, s, n, nil)
	return s, fetch(t, s, "w", 10)[0]
}

// waitingFetch begins a Fetch that waits for work, and returns once it is in line.
func waitingFetch(t *testing.T, ctx context.Context, s *Store, worker string, types ...string) <-chan *driver.FetchResult {
	t.Helper()
	line := func(s *Store) int {
		s.waiters.mu.Lock()
		defer s.waiters.mu.Unlock()
		return s.waiters.work.Len()
	}
	before := line(s)
	got := make(chan *driver.FetchResult, 1)
	go func() {
		res, _ := s.Fetch(ctx, driver.FetchRequest{Worker: worker, Queues: []string{"default"}, Types: types, Max: 10, Lease: time.Minute, Wait: time.Minute})
		got <- res // nil after an error
	}()
	for deadline := time.Now().Add(time.Minute); line(s) == before; {
		if time.Now().After(deadline) {
			t.Fatal("the fetch does not wait")
		}
		commits(s) // takes a turn of the writer
	}
	return got
}

// A slot that a settlement frees is taken in the same transaction by a fetch that waits in the process.
func TestASettlementHandsItsSlotOn(t *testing.T) {
	t.Parallel()
	s, first := narrowed(t, 3)
	for range 2 {
		got := waitingFetch(t, t.Context(), s, "w")
		before := commits(s)
		settle(t, s, "w", driver.Complete, first)
		res := <-got
		if res == nil || len(res.Claims) != 1 || res.Waited == 0 || res.LeaseEnd.IsZero() {
			t.Fatalf("the fetch that waited got %+v", res)
		}
		if n := commits(s) - before; n != 1 {
			t.Errorf("settlement and claim took %d commits, want 1", n)
		}
		first = res.Claims[0]
	}
	settle(t, s, "w", driver.Complete, first)
	wantSound(t, s)
}

// Who is given tasks beside a change that has to be on the disk begins with them while it is taken there, and only who made the
// change waits.
func TestClaimsDoNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*Store) <-chan *driver.FetchResult{
		"handed on":          func(s *Store) <-chan *driver.FetchResult { return waitingFetch(t, t.Context(), s, "w") },
		"in one transaction": nil,
	} {
		s, first := narrowed(t, 3)
		var got <-chan *driver.FetchResult
		if begin != nil {
			got = begin(s)
		}
		syncing, goOn := slowDisk(s)
		settled := make(chan error, 1)
		settle := func() {
			_, err := s.Settle(t.Context(), "w", []driver.Settlement{{ID: first.ID, Token: first.Token, Outcome: driver.Complete}})
			settled <- err
		}
		if got == nil {
			got = beside(t, s, settle)
		} else {
			go settle()
		}
		<-syncing
		select {
		case res := <-got:
			if res == nil || len(res.Claims) != 1 {
				t.Errorf("%s: the fetch got %+v", name, res)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: the fetch waits for the disk", name)
		}
		select {
		case err := <-settled:
			t.Errorf("%s: the settlement does not wait for the disk (%v)", name, err)
		default:
		}
		close(goOn)
		must(t, <-settled)
	}
}

// slowDisk has the next sync wait until goOn is closed; syncing tells when it begins.
func slowDisk(s *Store) (syncing <-chan bool, goOn chan<- bool) {
	begun, end := make(chan bool), make(chan bool)
	ask(s, func(w *writer) bool {
		var once sync.Once
		w.syncData = func(f *os.File) error {
			once.Do(func() { close(begun); <-end })
			return syncData(f)
		}
		return true
	})
	return begun, end
}

// beside makes a change and fetches in one transaction.
func beside(t *testing.T, s *Store, change func()) <-chan *driver.FetchResult {
	got := make(chan *driver.FetchResult, 1)
	ask(s, func(*writer) bool { // nothing is begun before both are there
		go change()
		go func() {
			res, _ := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Queues: []string{"default"}, Max: 10, Lease: time.Minute})
			got <- res // nil after an error
		}()
		for n := 0; n < 2; runtime.Gosched() {
			s.queue.mu.Lock()
			n = len(s.queue.ops)
			s.queue.mu.Unlock()
		}
		return true
	})
	return got
}

// A fetch that does not serve all that waits is not handed the slot: it would keep the others from it for good.
func TestASlotIsNotHandedOnPastOtherTypes(t *testing.T) {
	t.Parallel()
	s, first := narrowed(t, 3)
	_, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "other"}}, driver.EnqueueOptions{})
	must(t, err)
	got := waitingFetch(t, t.Context(), s, "w", first.Type)
	before := commits(s)
	settle(t, s, "w", driver.Complete, first)
	if res := <-got; res == nil || len(res.Claims) != 1 {
		t.Errorf("the fetch that waited got %+v", res)
	}
	if n := commits(s) - before; n != 2 {
		t.Errorf("settlement and claim took %d commits, want 2", n)
	}
}

// A process whose worker waits for a slot that others hand on writes nothing, and waits on.
func TestWhoCannotHaveASlotWritesNothing(t *testing.T) {
	t.Parallel()
	s, first := narrowed(t, 3)
	other := open(t, s.path, nil)
	register(t, other, "w2")
	before := commits(other)
	ctx, cancel := context.WithCancel(t.Context())
	elsewhere := waitingFetch(t, ctx, other, "w2")
	got := waitingFetch(t, t.Context(), s, "w")
	settle(t, s, "w", driver.Complete, first)
	if res := <-got; res == nil || len(res.Claims) != 1 {
		t.Fatalf("the fetch that waited got %+v", res)
	}
	last := func(s *Store) int64 { return ask(s, func(w *writer) int64 { w.look(); return w.st.nextEvent }) }
	if a, b := last(s), last(other); a != b {
		t.Errorf("the other process has seen events up to %d of %d", b, a)
	}
	cancel()
	if res := <-elsewhere; res != nil {
		t.Errorf("the other fetch got %+v", res)
	}
	if n := commits(other) - before; n != 0 {
		t.Errorf("the other process has committed %d transactions, want none", n)
	}
}

// What a waiting fetch was handed in a transaction that fails is not claimed: the fetch goes on by itself.
func TestAHandedSlotOfAFailedTransaction(t *testing.T) {
	t.Parallel()
	s, first := narrowed(t, 2)
	got := waitingFetch(t, t.Context(), s, "w")
	failed := false
	err := s.submit(&op{ctx: t.Context(), run: func(t *tx) error {
		if res := t.settle("w", &driver.Settlement{ID: first.ID, Token: first.Token, Outcome: driver.Complete}); res.Err != nil {
			return res.Err
		}
		if !failed {
			failed = true
			if err := t.w.serve(); err != nil {
				return err
			}
			return corruptf("the disk says so")
		}
		return nil
	}})
	wantErr(t, err, driver.ErrCorrupt)
	settle(t, s, "w", driver.Complete, first)
	res := <-got
	if res == nil || len(res.Claims) != 1 || res.Claims[0].ID == first.ID {
		t.Errorf("the fetch that waited got %+v", res)
	}
	wantSound(t, s)
}

// With a new key for each task no start moves the virtual time on, and yet what is kept of them is bounded.
func TestKeysThatNeverComeBackAreForgotten(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	register(t, s, "w")
	const batch, most = 1000, 3*driver.KeysResting + mostSwept
	kept := func() int64 {
		return ask(s, func(w *writer) int64 {
			if n, err := w.c.number("SELECT count(*) FROM keyed"); err == nil {
				return n
			}
			return -1
		})
	}
	for i := 0; i < 8*driver.KeysResting; i += batch {
		add(t, s, batch, func(j int, task *driver.Task) { task.Key = fmt.Sprint("key-", i+j) })
		settle(t, s, "w", driver.Complete, fetch(t, s, "w", batch-1)...) // so that one waits at any time
		if n := kept(); n < 0 || n > int64(most+i/batch) {
			t.Fatalf("after %d keys that were used once %d are kept, want at most %d and those that are at work", i+batch, n, most)
		}
	}
	wantSound(t, s)
}

// Keys at their limit are looked through once, not by each Fetch, to see which of them are at rest.
func TestKeysAreSweptOnceForAReason(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	register(t, s, "w")
	_, err := s.SetQueue(t.Context(), "default", driver.QueuePatch{Limits: &[]driver.Limit{{PerKey: true, Concurrency: 1}}})
	must(t, err)
	const keys = 3 * sweepPart
	add(t, s, 2*keys, func(i int, task *driver.Task) { task.Key = fmt.Sprint("key-", i%keys) })
	claims := fetch(t, s, "w", 1000)
	if len(claims) != keys {
		t.Fatalf("%d tasks were claimed, want one of each of %d keys", len(claims), keys)
	}
	for range 5 {
		fetch(t, s, "w", 10)
	}
	swept := func() sweep { return ask(s, func(w *writer) sweep { return w.st.queues["default"].share.sweep }) }
	before := swept()
	if before.to != 0 || before.began == 0 {
		t.Errorf("five fetches later the sweep is %+v, want it over", before)
	}
	fetch(t, s, "w", 10)
	if after := swept(); after.to != 0 || after.began != before.began && after.began-before.began < sweepAnyway {
		t.Errorf("a fetch has begun a sweep without a reason: %+v, before %+v", after, before)
	}
	for len(claims) > 0 { // the second tasks move the virtual time on, which is a reason
		settle(t, s, "w", driver.Complete, claims...)
		claims = fetch(t, s, "w", 1000)
	}
	for range 10 {
		add(t, s, 1, func(_ int, task *driver.Task) { task.Key = "last" })
		settle(t, s, "w", driver.Complete, fetch(t, s, "w", 10)...)
	}
	left := ask(s, func(w *writer) int64 {
		n, err := w.c.number("SELECT count(*) FROM keyed")
		if err != nil {
			return -1
		}
		return n
	})
	if left < 0 || left > 1 {
		t.Errorf("%d keys are kept, want those that are at rest forgotten", left)
	}
}
