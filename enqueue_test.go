package waggle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// slowStore takes a second for each call of Enqueue and records what it was given.
type slowStore struct {
	driver.Store
	mu      sync.Mutex
	batches [][]string // payloads
	levels  []driver.Durability
}

func (s *slowStore) Enqueue(ctx context.Context, tasks []*driver.Task, o driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	var batch []string
	for _, t := range tasks {
		batch = append(batch, string(t.Payload))
	}
	s.mu.Lock()
	s.batches, s.levels = append(s.batches, batch), append(s.levels, o.Durability)
	s.mu.Unlock()
	time.Sleep(time.Second)
	return s.Store.Enqueue(ctx, tasks, o)
}

func (s *slowStore) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes []int
	for _, b := range s.batches {
		sizes = append(sizes, len(b))
	}
	return sizes
}

func slowClient(t *testing.T, limits driver.Limits) (*slowStore, *waggle.Client) {
	t.Helper()
	mem, err := memstore.Open(&memstore.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	s := &slowStore{Store: mem}
	c, err := waggle.NewClient(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()); _ = mem.Close() })
	return s, c
}

// While one batch is in flight the next one fills; the first goes alone and at once.
func TestEnqueueCoalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := slowClient(t, driver.Limits{})
		began := time.Now()
		var wg sync.WaitGroup
		enqueue := func(i int) {
			r, err := c.Enqueue(t.Context(), "x", i, nil)
			if err != nil || r.State != waggle.Available || r.Existing || r.Durability != waggle.DurabilityMemory {
				t.Errorf("Enqueue = %+v, %v", r, err)
			}
			info, err := c.Get(t.Context(), r.ID)
			if err != nil || string(info.Payload.Bytes) != fmt.Sprint(i) {
				t.Errorf("task %d was given the receipt of %v, %v", i, info, err)
			}
		}
		wg.Go(func() { enqueue(0) })
		synctest.Wait()
		for i := range 2500 {
			wg.Go(func() { enqueue(i + 1) })
		}
		wg.Wait()
		if diff := cmp.Diff([]int{1, 1000, 1000, 500}, s.sizes()); diff != "" {
			t.Errorf("batches, want -, got +:\n%s", diff)
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// Callers that come back again and again have two batches in flight, so that not half of them wait for the other half; a
// crowd sends one batch at a time. A store call takes a second here: one batch at a time makes two seconds a round.
func TestEnqueueTakesTurns(t *testing.T) {
	t.Parallel()
	for callers, seconds := range map[int]float64{1: 1, 2: 1.1, 50: 1.95, 200: 2.1} {
		t.Run(fmt.Sprint(callers, " callers"), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := slowClient(t, driver.Limits{})
				const rounds = 20
				began := time.Now()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for range rounds {
							if _, err := c.Enqueue(t.Context(), "x", nil, nil); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if took := time.Since(began).Seconds(); took > rounds*seconds {
					t.Errorf("%d rounds took %vs, want %vs at most", rounds, took, rounds*seconds)
				}
				if mean := callers * rounds / len(s.sizes()); mean < callers/4 {
					t.Errorf("a batch has %d tasks: %v", mean, s.sizes())
				}
			})
		})
	}
}

func TestEnqueueRespectsBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := slowClient(t, driver.Limits{MaxPayload: 100, MaxBatchBytes: 250})
		var wg sync.WaitGroup
		send := func() {
			if _, err := c.Enqueue(t.Context(), "x", make([]byte, 100), nil); err != nil {
				t.Error(err)
			}
		}
		wg.Go(send)
		synctest.Wait()
		for range 5 {
			wg.Go(send)
		}
		wg.Wait()
		if diff := cmp.Diff([]int{1, 2, 2, 1}, s.sizes()); diff != "" {
			t.Errorf("batches, want -, got +:\n%s", diff)
		}
		if _, err := c.Enqueue(t.Context(), "x", make([]byte, 101), nil); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a payload over the limit: %v", err)
		}
		tasks := make([]waggle.NewTask, 5)
		for i := range tasks {
			tasks[i] = waggle.NewTask{Type: "x", Payload: make([]byte, 100)}
		}
		tasks[2].Payload = make([]byte, 101)
		results, err := c.EnqueueBatch(t.Context(), tasks)
		if err != nil || !errors.Is(results[2].Err, waggle.ErrInvalid) || results[4].Err != nil {
			t.Errorf("EnqueueBatch = %+v, %v", results, err)
		}
		if diff := cmp.Diff([]int{1, 2, 2, 1, 2, 2}, s.sizes()); diff != "" {
			t.Errorf("batches, want -, got +:\n%s", diff)
		}
	})
}

// A caller that gives up harms nobody, and its task is not sent if it was not on its way.
func TestEnqueueCallerGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := slowClient(t, driver.Limits{})
		why := errors.New("lost interest")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		gaveUp := func(payload string) {
			r, err := c.Enqueue(ctx, "x", payload, nil)
			if !errors.Is(err, why) || r.ID == "" {
				t.Errorf("Enqueue = %+v, %v", r, err)
			}
		}
		stays := func(payload string) {
			if _, err := c.Enqueue(t.Context(), "x", payload, nil); err != nil {
				t.Error(err)
			}
		}
		wg.Go(func() { gaveUp("in flight") })
		synctest.Wait()
		wg.Go(func() { gaveUp("waiting") })
		wg.Go(func() { stays("other") })
		synctest.Wait()
		began := time.Now()
		cancel(why)
		synctest.Wait()
		if time.Since(began) != 0 {
			t.Error("giving up took time")
		}
		wg.Wait()
		if diff := cmp.Diff([][]string{{`"in flight"`}, {`"other"`}}, s.batches); diff != "" {
			t.Error(diff)
		}
		if _, err := c.Enqueue(ctx, "x", nil, nil); !errors.Is(err, why) || len(s.sizes()) != 2 {
			t.Errorf("Enqueue with a context that has ended = %v, %v", err, s.sizes())
		}
	})
}

// Tasks of different durability levels are never in one batch.
func TestEnqueueKeepsLevelsApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := slowClient(t, driver.Limits{})
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				level := []waggle.Durability{"", waggle.DurabilityMemory}[i%2]
				if _, err := c.Enqueue(t.Context(), "x", i, &waggle.EnqueueOptions{Durability: level}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i, b := range s.batches {
			for _, payload := range b {
				want := []driver.Durability{"", driver.DurabilityMemory}[(payload[0]-'0')%2]
				if s.levels[i] != want {
					t.Errorf("task %s was sent at level %q", payload, s.levels[i])
				}
			}
		}
		_, err := c.Enqueue(t.Context(), "x", nil, &waggle.EnqueueOptions{Durability: waggle.DurabilityDisk})
		if !errors.Is(err, waggle.ErrUnsupported) {
			t.Errorf("a level that the store lacks: %v", err)
		}
	})
}

// An enqueue whose reply is lost is repeated with the same ids: one task, and the receipt does not call it existing.
func TestEnqueueReplyLost(t *testing.T) {
	for name, what := range map[string]fault{"reply lost": after, "not reached": before} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				e.store.set(once("enqueue", what, 2))
				r, err := e.client.Enqueue(t.Context(), "x", 1, nil)
				if err != nil || r.Existing {
					t.Errorf("Enqueue = %+v, %v", r, err)
				}
				e.store.set(once("enqueue", what, 2))
				results, err := e.client.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "x"}, {Type: "x", Options: &waggle.EnqueueOptions{ID: r.ID}}})
				if err != nil || results[0].Existing || !results[1].Existing {
					t.Errorf("EnqueueBatch = %+v, %v", results, err)
				}
				e.wantCount(2)
				e.store.set(once("enqueue", what, 3))
				r, err = e.client.Enqueue(t.Context(), "x", 1, nil)
				if !errors.Is(err, waggle.ErrUnavailable) || r.ID == "" {
					t.Errorf("Enqueue = %+v, %v", r, err)
				}
				if _, err := e.client.Enqueue(t.Context(), "x", 1, &waggle.EnqueueOptions{ID: r.ID}); err != nil {
					t.Error(err)
				}
				e.wantCount(3)
			})
		})
	}
}

func (e *env) wantCount(n int) {
	e.t.Helper()
	got := 0
	for _, err := range e.client.All(e.t.Context(), waggle.Filter{}) {
		if err != nil {
			e.t.Fatal(err)
		}
		got++
	}
	if got != n {
		e.t.Errorf("%d tasks, want %d", got, n)
	}
}

func TestBatch(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		tasks := make([]waggle.NewTask, 2500)
		for i := range tasks {
			tasks[i] = waggle.NewTask{Type: "x", Payload: i, Options: &waggle.EnqueueOptions{ID: fmt.Sprint("t", i)}}
		}
		tasks[17].Type = "no good"
		tasks[18].Options = &waggle.EnqueueOptions{Priority: 1000}
		tasks[19].Payload = func() {}
		tasks[20].Options.ID = "t0"
		results, err := e.client.EnqueueBatch(t.Context(), tasks)
		if err != nil || len(results) != len(tasks) {
			t.Fatal(len(results), err)
		}
		for i, r := range results {
			bad := i >= 17 && i <= 19
			if bad != errors.Is(r.Err, waggle.ErrInvalid) {
				t.Errorf("task %d: %v", i, r.Err)
			}
			if !bad && (r.Existing != (i == 20) || i != 20 && r.ID != fmt.Sprint("t", i)) {
				t.Errorf("task %d: %+v", i, r)
			}
		}
		e.wantCount(2496)
		if n := e.store.count("enqueue"); n != 3 {
			t.Errorf("%d calls to the store", n)
		}
		e.store.set(outage)
		results, err = e.client.EnqueueBatch(t.Context(), tasks[:5])
		if !errors.Is(err, waggle.ErrUnavailable) || len(results) != 5 || results[4].Err == nil || results[4].ID != "t4" {
			t.Errorf("EnqueueBatch = %+v, %v", results, err)
		}
		e.store.set(nil)
		if results, err := e.client.EnqueueBatch(t.Context(), nil); err != nil || len(results) != 0 {
			t.Errorf("an empty batch: %v, %v", results, err)
		}
	})
}

func TestUnique(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		opts := &waggle.EnqueueOptions{Unique: &waggle.UniqueOptions{}}
		first := e.enqueue("x", map[string]int{"a": 1}, opts)
		r, err := e.client.Enqueue(t.Context(), "x", map[string]int{"a": 1}, opts)
		if err != nil || r.ID != first || !r.Existing {
			t.Errorf("the same again: %+v, %v", r, err)
		}
		for _, other := range []waggle.NewTask{
			{Type: "y", Payload: map[string]int{"a": 1}, Options: opts},
			{Type: "x", Payload: map[string]int{"a": 2}, Options: opts},
			{Type: "x", Payload: map[string]int{"a": 1}, Options: &waggle.EnqueueOptions{Queue: "q", Unique: opts.Unique}},
		} {
			if r, err := e.client.Enqueue(t.Context(), other.Type, other.Payload, other.Options); err != nil || r.Existing {
				t.Errorf("%+v: %+v, %v", other, r, err)
			}
		}
		reject := &waggle.EnqueueOptions{Queue: "default", Unique: &waggle.UniqueOptions{OnConflict: waggle.ConflictReject}}
		if r, err := e.client.Enqueue(t.Context(), "x", map[string]int{"a": 1}, reject); !errors.Is(err, waggle.ErrDuplicate) || r.ID != first {
			t.Errorf("reject: %+v, %v", r, err)
		}
	})
}

func TestEnqueueMiddleware(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, err := memstore.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		var trace []string
		c, err := waggle.NewClient(mem, &waggle.ClientOptions{Middleware: []waggle.EnqueueMiddleware{
			func(next waggle.EnqueueFunc) waggle.EnqueueFunc {
				return func(ctx context.Context, tasks []waggle.NewTask) ([]waggle.EnqueueResult, error) {
					trace = append(trace, fmt.Sprint("outer ", len(tasks)))
					return next(ctx, tasks)
				}
			},
			func(next waggle.EnqueueFunc) waggle.EnqueueFunc {
				return func(ctx context.Context, tasks []waggle.NewTask) ([]waggle.EnqueueResult, error) {
					trace = append(trace, "inner")
					for i := range tasks {
						tasks[i].Options = &waggle.EnqueueOptions{Headers: map[string]string{"trace": "1"}}
					}
					return next(ctx, tasks)
				}
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Enqueue(t.Context(), "x", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := c.Get(t.Context(), r.ID)
		if err != nil || info.Headers["trace"] != "1" {
			t.Errorf("Get = %+v, %v", info, err)
		}
		if _, err := c.Enqueue(t.Context(), "no good", nil, nil); !errors.Is(err, waggle.ErrInvalid) || strings.Count(err.Error(), "waggle:") != 1 {
			t.Errorf("Enqueue = %v", err)
		}
		if _, err := c.EnqueueBatch(t.Context(), make([]waggle.NewTask, 3)); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"outer 1", "inner", "outer 1", "inner", "outer 3", "inner"}, trace); diff != "" {
			t.Error(diff)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := slowClient(t, driver.Limits{})
		done := make(chan error, 1)
		go func() { _, err := c.Enqueue(t.Context(), "x", nil, nil); done <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the call under way: %v", err)
		}
		if _, err := c.Enqueue(t.Context(), "x", nil, nil); !errors.Is(err, waggle.ErrClosed) {
			t.Errorf("Enqueue after Close = %v", err)
		}
		if _, err := c.Wait(t.Context(), "x"); !errors.Is(err, waggle.ErrClosed) {
			t.Errorf("Wait after Close = %v", err)
		}
		if _, err := s.Info(t.Context()); err != nil {
			t.Errorf("the store was closed too: %v", err)
		}
	})
}

func TestEnqueueOptionsSurviveJSON(t *testing.T) {
	t.Parallel()
	want := waggle.EnqueueOptions{
		ID: "id", Queue: "q", Priority: -3, Delay: 90 * time.Second, ExpiresIn: time.Hour,
		At: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), ExpiresAt: time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC),
		Hold: true, MaxAttempts: 3, CrashLimit: 2, Timeout: 1500 * time.Millisecond,
		Headers: map[string]string{"k": "v"}, Tags: []string{"a", "b"}, Durability: waggle.DurabilityDisk,
		Unique: &waggle.UniqueOptions{Key: "k", Until: waggle.UntilTTL, TTL: time.Minute, OnConflict: waggle.ConflictReplace},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"delay":"1m30s"`, `"timeout":"1.5s"`, `"ttl":"1m0s"`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("%s\nwant a part %s", b, part)
		}
	}
	var got waggle.EnqueueOptions
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if b, err := json.Marshal(waggle.EnqueueOptions{}); err != nil || string(b) != "{}" {
		t.Errorf("the zero value: %s, %v", b, err)
	}
	for _, bad := range []string{`{"delay":"soon"}`, `{"delay":5}`, `{"unique":{"ttl":"x"}}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestPayloadForms(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for _, tt := range []struct {
			payload any
			want    string // as JSON
		}{
			{nil, `null`},
			{"text", `"text"`},
			{json.RawMessage(`{"a": 1}`), `{"a":1}`},
			{[]byte("raw"), `{"base64":"cmF3"}`},
			{[]byte{}, `{"base64":""}`},
			{struct{ A int }{1}, `{"A":1}`},
		} {
			info := e.get(e.enqueue("x", tt.payload, nil))
			got, err := json.Marshal(info.Payload)
			if err != nil || string(got) != tt.want {
				t.Errorf("payload %#v is shown as %s, %v", tt.payload, got, err)
			}
			var back waggle.Data
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			if again, err := json.Marshal(back); err != nil || string(again) != tt.want {
				t.Errorf("%s read and written again: %s, %v", got, again, err)
			}
		}
		for _, bad := range []any{func() {}, json.RawMessage(`{`)} {
			if _, err := e.client.Enqueue(t.Context(), "x", bad, nil); !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("payload %v: %v", bad, err)
			}
		}
	})
}

func TestClientOptionsJoinAllProblems(t *testing.T) {
	t.Parallel()
	_, err := waggle.NewClient(newPlainEnv(t), &waggle.ClientOptions{
		Timeout: -1, DefaultDurability: waggle.DurabilityReplicated, Middleware: []waggle.EnqueueMiddleware{nil},
	})
	for _, part := range []string{"timeout", "replicated", "middleware"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("NewClient = %v\nwant a part about %q", err, part)
		}
	}
	for name, err := range map[string]error{
		"client": func() error { _, err := waggle.NewClient(nil, nil); return err }(),
		"worker": func() error { _, err := waggle.NewWorker(nil, nil); return err }(),
	} {
		if !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a %s without a store: %v", name, err)
		}
	}
}

// A store that does not answer is reported as unavailable, with the id to try again with.
func TestEnqueueTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.store.set(func(string) fault { return hang })
		began := time.Now()
		r, err := e.client.Enqueue(t.Context(), "x", nil, nil)
		if !errors.Is(err, waggle.ErrUnavailable) || r.ID == "" || time.Since(began) != 30*time.Second {
			t.Errorf("Enqueue = %+v, %v after %v", r, err, time.Since(began))
		}
		e.store.set(nil)
	})
}
