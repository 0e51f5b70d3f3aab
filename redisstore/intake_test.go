package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// eachIntakeStore runs a test on one server of each flavour and on a cluster.
func eachIntakeStore(t *testing.T, test func(t *testing.T, url string, in driver.Intake)) {
	t.Helper()
	t.Parallel()
	list := func() driver.Intake {
		return driver.Intake{List: fmt.Sprintf("tasks %d", namespaces.Add(1)), Type: "note", Queue: "in"}
	}
	for _, f := range redisserver.Flavours() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			test(t, shared(t, f), list())
		})
	}
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: redisserver.Valkey}})
		test(t, c.URL()+"?shards=4", list())
	})
}

func push(t *testing.T, s *redisstore.Store, in driver.Intake, elements ...string) {
	t.Helper()
	if err := redisstore.Push(t.Context(), s, in.List, elements...); err != nil {
		t.Fatal(err)
	}
}

// numbers returns n different elements.
func numbers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("element ", i)
	}
	return list
}

// moveAll moves a list until it is empty and returns how many of its elements became tasks and were refused.
func moveAll(ctx context.Context, s *redisstore.Store, in driver.Intake) (moved, refused int, err error) {
	for {
		r, err := s.MoveIntake(ctx, in, 0)
		if err != nil || !r.More && !r.Busy {
			return moved, refused, err
		}
		moved, refused = moved+r.Moved, refused+r.Refused
	}
}

func move(t *testing.T, s *redisstore.Store, in driver.Intake) (moved int) {
	t.Helper()
	moved, refused, err := moveAll(t.Context(), s, in)
	if err != nil || refused > 0 {
		t.Fatalf("moving: %v, %d refused", err, refused)
	}
	return moved
}

// payloads returns the payloads of all tasks of the intake's queue, sorted, and checks the store.
func payloads(t *testing.T, s *redisstore.Store, in driver.Intake) []string {
	t.Helper()
	var list []string
	for cursor, more := "", true; more; more = cursor != "" {
		page, err := s.List(t.Context(), driver.Filter{Queues: []string{in.Queue}}, driver.Page{Cursor: cursor, Size: driver.MaxPage})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			if r.Type != in.Type || r.State != driver.Available {
				t.Errorf("task %s is of type %s and %s", r.ID, r.Type, r.State)
			}
			list = append(list, string(r.Payload))
		}
		cursor = page.Next
	}
	slices.Sort(list)
	drivertest.Audit(t, s)
	return list
}

// quoted returns elements as the payloads that they become.
func quoted(elements []string) []string {
	list := make([]string, len(elements))
	for i, e := range elements {
		list[i] = `"` + e + `"`
	}
	slices.Sort(list)
	return list
}

func TestIntakeElementsBecomeTasks(t *testing.T) {
	eachIntakeStore(t, func(t *testing.T, url string, in driver.Intake) {
		s := open(t, url, &redisstore.Options{Limits: driver.Limits{MaxPayload: 1000}})
		long := strings.Repeat("x", 999)
		push(t, s, in, "Calculate user balance", `{"a": "<b> & \"c\""}`, "", "\xff\x00\xfe", long, "Überweisung\n")
		r, err := s.MoveIntake(t.Context(), in, 0)
		if err != nil {
			t.Fatal(err)
		}
		if r.Moved != 5 || r.Refused != 1 || !r.More || r.RefusedList == "" {
			t.Errorf("moved: %+v", r)
		}
		want := []string{`""`, `"Calculate user balance"`, `"{\"a\": \"<b> & \\\"c\\\"\"}"`, `"Überweisung\n"`, "\xff\x00\xfe"}
		slices.Sort(want)
		if diff := cmp.Diff(want, payloads(t, s, in)); diff != "" {
			t.Error(diff)
		}
		if n, err := redisstore.ListLen(t.Context(), s, r.RefusedList); err != nil || n != 1 {
			t.Errorf("%d elements are kept as refused, want 1: %v", n, err)
		}
		if r, err := s.MoveIntake(t.Context(), in, 0); err != nil || *r != (driver.IntakeResult{}) {
			t.Errorf("an empty list gave %+v, %v", r, err)
		}
	})
}

func TestIntakeKeepsTheOrder(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s, in := open(t, shared(t, f), nil), driver.Intake{List: "ordered " + string(f), Type: "note"}
		elements := numbers(2500)
		push(t, s, in, elements...)
		if n := move(t, s, in); n != len(elements) {
			t.Fatalf("%d moved", n)
		}
		register(t, s, "w")
		var got []string
		for len(got) < len(elements) {
			claims := fetch(t, s, "w", 1000)
			for _, c := range claims {
				got = append(got, strings.Trim(string(c.Payload), `"`))
			}
			settle(t, s, "w", claims)
		}
		if diff := cmp.Diff(elements, got); diff != "" {
			t.Error(diff)
		}
	})
}

// However many move a list at the same time, while it is being filled, every element becomes one task.
func TestIntakeByMany(t *testing.T) {
	eachIntakeStore(t, func(t *testing.T, url string, in driver.Intake) {
		const movers, pushes, each = 4, 40, 50
		first := open(t, url, nil)
		elements := numbers(pushes * each)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		for range movers {
			s := open(t, url, nil)
			redisstore.SetIntakeRespect(s, 0) // each does as if the others had died
			wg.Go(func() {
				for ctx.Err() == nil {
					_, err := s.MoveIntake(ctx, in, 20)
					if err == nil {
						err = s.AwaitIntake(ctx, in, time.Millisecond)
					}
					if err != nil && ctx.Err() == nil {
						t.Errorf("moving: %v", err)
						return
					}
				}
			})
		}
		for part := range slices.Chunk(elements, each) {
			push(t, first, in, part...)
		}
		redisstore.SetIntakeRespect(first, 0)
		move(t, first, in)
		cancel()
		wg.Wait()
		move(t, first, in)
		if diff := cmp.Diff(quoted(elements), payloads(t, first, in)); diff != "" {
			t.Error(diff)
		}
	})
}

// clearQueue completes everything and lets nothing of it stay.
func clearQueue(t *testing.T, s *redisstore.Store, in driver.Intake, want int) {
	t.Helper()
	keep := driver.DefaultRetention()
	keep.Completed = driver.KeepNone
	if _, err := s.SetQueue(t.Context(), in.Queue, driver.QueuePatch{Retention: &keep}); err != nil {
		t.Fatal(err)
	}
	register(t, s, "w")
	for done := 0; done < want; {
		r, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{in.Queue}, Max: 1000})
		if err != nil || len(r.Claims) == 0 {
			t.Fatalf("%d of %d tasks were done: %v", done, want, err)
		}
		settle(t, s, "w", r.Claims)
		done += len(r.Claims)
	}
	if _, err := s.Maintain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if left := payloads(t, s, in); len(left) > 0 {
		t.Fatalf("%d tasks are left", len(left))
	}
}

// A caller that dies after any step leaves a batch that the next one finishes, and one that comes late changes nothing,
// even when the tasks have long been done and forgotten.
func TestIntakeCallerDies(t *testing.T) {
	eachIntakeStore(t, func(t *testing.T, url string, in driver.Intake) {
		dying, heir := open(t, url, nil), open(t, url, nil)
		redisstore.SetIntakeRespect(heir, 0)
		elements := numbers(30)

		push(t, heir, in, elements[:10]...)
		first, err := redisstore.TakeBatch(t.Context(), dying, in)
		if err != nil {
			t.Fatal(err)
		}
		if n := move(t, heir, in); n != 10 {
			t.Errorf("%d moved for a caller that died with the batch in hand, want 10", n)
		}
		if diff := cmp.Diff(quoted(elements[:10]), payloads(t, heir, in)); diff != "" {
			t.Error(diff)
		}
		clearQueue(t, heir, in, 10)

		push(t, heir, in, elements[10:20]...)
		second, err := redisstore.TakeBatch(t.Context(), dying, in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Store(t.Context()); err != nil {
			t.Errorf("storing late: %v", err)
		}
		if again := payloads(t, heir, in); len(again) > 0 {
			t.Errorf("these were done and are there again: %q", again)
		}
		if moved, err := second.Store(t.Context()); err != nil || moved {
			t.Errorf("storing: %v, %v", moved, err)
		}
		clearQueue(t, heir, in, 10)
		if n := move(t, heir, in); n != 10 {
			t.Errorf("%d moved for a caller that died before it dropped the batch, want 10", n)
		}
		if moved, err := second.Store(t.Context()); err != nil {
			t.Errorf("storing late: %v, %v", moved, err)
		}
		if again := payloads(t, heir, in); len(again) > 0 {
			t.Errorf("these were done and are there again: %q", again)
		}
		push(t, heir, in, elements[20:]...)
		move(t, heir, in)
		if diff := cmp.Diff(quoted(elements[20:]), payloads(t, heir, in)); diff != "" {
			t.Error(diff)
		}
	})
}

// While a caller has a batch the others leave it alone for a while.
func TestIntakeBusy(t *testing.T) {
	t.Parallel()
	url, in := shared(t, redisserver.Redis), driver.Intake{List: "busy", Type: "note", Queue: "in"}
	a, b := open(t, url, nil), open(t, url, nil)
	redisstore.SetIntakeRespect(b, time.Hour)
	push(t, a, in, "x")
	if _, err := redisstore.TakeBatch(t.Context(), a, in); err != nil {
		t.Fatal(err)
	}
	if r, err := b.MoveIntake(t.Context(), in, 0); err != nil || !r.Busy || r.Moved != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if n := move(t, a, in); n != 1 {
		t.Errorf("the caller itself moved %d", n)
	}
}

func TestAwaitIntake(t *testing.T) {
	eachIntakeStore(t, func(t *testing.T, url string, in driver.Intake) {
		s := open(t, url, nil)
		if err := s.AwaitIntake(t.Context(), in, time.Millisecond); err != nil {
			t.Fatal(err)
		}
		woken := make(chan error, 1)
		go func() { woken <- s.AwaitIntake(t.Context(), in, time.Minute) }()
		push(t, s, in, "a", "b", "c") // before the wait or during it, both must do
		if err := <-woken; err != nil {
			t.Fatal(err)
		}
		if n := move(t, s, in); n != 3 {
			t.Errorf("%d moved, want 3", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { woken <- s.AwaitIntake(ctx, in, time.Minute) }()
		cancel()
		if err := <-woken; !errors.Is(err, context.Canceled) {
			t.Errorf("the end of the context gave %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.AwaitIntake(t.Context(), in, time.Minute); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := s.MoveIntake(t.Context(), in, 0); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestIntakeOfADrainingQueueWaits(t *testing.T) {
	eachIntakeStore(t, func(t *testing.T, url string, in driver.Intake) {
		s, other := open(t, url, nil), open(t, url, nil)
		push(t, s, in, numbers(3)...)
		yes, no := true, false
		if _, err := other.SetQueue(t.Context(), in.Queue, driver.QueuePatch{Draining: &yes}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.MoveIntake(t.Context(), in, 0); !errors.Is(err, driver.ErrQueueClosed) {
				t.Errorf("got %v, want ErrQueueClosed", err)
			}
		}
		if _, err := other.SetQueue(t.Context(), in.Queue, driver.QueuePatch{Draining: &no}); err != nil {
			t.Fatal(err)
		}
		if n := move(t, s, in); n != 3 {
			t.Errorf("%d moved, want 3", n)
		}
		if diff := cmp.Diff(quoted(numbers(3)), payloads(t, s, in)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBadIntakes(t *testing.T) {
	t.Parallel()
	s := open(t, shared(t, redisserver.Redis), nil)
	for _, in := range []driver.Intake{
		{}, {List: "l"}, {Type: "t"}, {List: "l", Type: "no way"}, {List: "l", Type: "t", Queue: "?"}, {List: "a\nb", Type: "t"},
		{List: "\xff", Type: "t"}, {List: strings.Repeat("l", driver.MaxListLen+1), Type: "t"}, {List: "waggle:{default.0}:ord", Type: "t"},
	} {
		if _, err := s.MoveIntake(t.Context(), in, 0); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("MoveIntake of %+v: %v", in, err)
		}
		if err := s.AwaitIntake(t.Context(), in, time.Minute); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("AwaitIntake of %+v: %v", in, err)
		}
	}
	server := redistest.Start(t, nil)
	s = open(t, server.URL(), nil)
	if _, err := server.Do(t.Context(), "SET", "text", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.MoveIntake(t.Context(), driver.Intake{List: "text", Type: "t"}, 0); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a key that is no list: %v", err)
	}
	if err := s.AwaitIntake(t.Context(), driver.Intake{List: "text", Type: "t"}, time.Minute); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a key that is no list: %v", err)
	}
}

// The keys beside a list are in its slot.
func TestIntakeListNamesInACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, nil)
	s := open(t, c.URL(), nil)
	for _, list := range []string{"tasks", "a{b}c", "a{b", "{x}{y}"} {
		in := driver.Intake{List: list, Type: "note", Queue: "in"}
		push(t, s, in, "x")
		if err := s.AwaitIntake(t.Context(), in, time.Minute); err != nil {
			t.Errorf("%s: %v", list, err)
		}
		if n := move(t, s, in); n != 1 {
			t.Errorf("%s: %d moved", list, n)
		}
	}
	for _, list := range []string{"a}b", "{}x"} {
		if _, err := s.MoveIntake(t.Context(), driver.Intake{List: list, Type: "note"}, 0); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("%s: %v", list, err)
		}
	}
}

// Calls that meet new types at the same moment learn of them all, whichever reads the registry first.
func TestNewTypesAtOnce(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for range 20 {
			s := open(t, shared(t, f), nil)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					results, err := s.Enqueue(t.Context(), []*driver.Task{{Type: fmt.Sprint("type", i)}}, driver.EnqueueOptions{})
					if err != nil || results[0].Err != nil {
						t.Errorf("Enqueue: %v, %+v", err, results)
					}
				})
			}
			wg.Wait()
		}
	})
}
