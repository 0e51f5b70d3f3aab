package waggletest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/waggletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

type order struct{ ID int }

// register registers handlers as an application would.
func register(w *waggle.Worker) {
	waggle.Handle(w, "order.pay", func(ctx context.Context, t *waggle.Task, in order) error {
		if in.ID < 0 {
			return waggle.Discard(errors.New("no such order"))
		}
		if in.ID == 0 {
			return errBoom
		}
		t.Logger().Info("paid", "order", in.ID)
		if _, err := t.Client().Enqueue(ctx, "order.ship", in, &waggle.EnqueueOptions{Queue: "default", Delay: time.Hour, Tags: []string{"b"}}); err != nil {
			return err
		}
		return t.SetResult(in.ID)
	}, nil)
	waggle.Handle(w, "order.ship", func(context.Context, *waggle.Task, order) error { return nil }, nil)
}

func TestRunTask(t *testing.T) {
	t.Parallel()
	env := waggletest.New(t)
	w := env.Worker(nil)
	register(w)

	info := waggletest.RunTask(t, w, "order.pay", order{7}, &waggle.EnqueueOptions{Delay: time.Hour})
	if got, err := waggle.Result[int](info); got != 7 || err != nil {
		t.Errorf("result %d, %v", got, err)
	}
	if len(info.Logs) != 1 || info.Logs[0].Message != "paid" {
		t.Errorf("logs: %+v", info.Logs)
	}
	waggletest.RequireEnqueued(t, env.Client, "order.ship", waggletest.WithPayload(order{7}), waggletest.InQueue("default"),
		waggletest.DueIn(time.Hour), waggletest.InState(waggle.Scheduled), waggletest.WithTags("b"), waggletest.WithPriority(0))
	waggletest.RefuteEnqueued(t, env.Client, "order.ship", waggletest.WithPayload(order{8}))
	waggletest.RefuteEnqueued(t, env.Client, "order.pay")

	if info := waggletest.RunTask(t, w, "order.pay", order{0}, nil); info.State != waggle.Retryable || info.LastError() != "boom" {
		t.Errorf("%s: %q", info.State, info.LastError())
	}
	if info := waggletest.RunTask(t, w, "order.pay", order{-1}, nil); info.State != waggle.Discarded {
		t.Errorf("%s: %q", info.State, info.LastError())
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	env := waggletest.New(t)
	w := env.Worker(nil)
	register(w)
	for i := range 3 {
		if _, err := env.Client.Enqueue(t.Context(), "order.pay", order{i + 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := waggletest.Drain(t, env, w); n != 3 {
		t.Errorf("%d runs, want 3: shipping is due in an hour", n)
	}
	env.Advance(time.Hour)
	if n := waggletest.Drain(t, env, w); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
	waggletest.RequireEnqueued(t, env.Client, "order.ship", waggletest.InState(waggle.Completed))
}

func TestDrainRunsBatches(t *testing.T) {
	t.Parallel()
	env := waggletest.New(t)
	w := env.Worker(nil)
	var sizes []int
	waggle.HandleBatch(w, "mail", func(_ context.Context, batch []waggle.BatchItem[string]) error {
		sizes = append(sizes, len(batch))
		batch[0].End(waggle.Discard(errors.New("no such address")))
		return nil
	}, &waggle.BatchOptions{Max: 3, Wait: time.Hour})
	for _, key := range []string{"", "", "", "", "tenant"} {
		if _, err := env.Client.Enqueue(t.Context(), "mail", "m", &waggle.EnqueueOptions{Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	if n := waggletest.Drain(t, env, w); n != 5 {
		t.Errorf("%d runs, want 5", n)
	}
	slices.Sort(sizes)
	if want := []int{1, 1, 3}; !slices.Equal(sizes, want) {
		t.Errorf("batches of %v, want %v", sizes, want)
	}
	if info := waggletest.RunTask(t, w, "mail", "m", nil); info.State != waggle.Discarded {
		t.Errorf("the task is %s", info.State)
	}
}

func TestWorkInBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		env := waggletest.New(t)
		w := env.Worker(nil)
		register(w)
		env.Work(t, w)
		r, err := env.Client.Enqueue(t.Context(), "order.pay", order{1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := env.Client.Wait(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		ship := waggletest.RequireEnqueued(t, env.Client, "order.ship")
		began := time.Now()
		info, err := env.Client.Wait(t.Context(), ship.ID)
		if err != nil || info.State != waggle.Completed {
			t.Fatal(info, err)
		}
		if took := time.Since(began); took < time.Hour || took > time.Hour+time.Second {
			t.Errorf("shipped after %v", took)
		}
	})
}

// fatalTB is a test that notes why it failed.
type fatalTB struct {
	testing.TB
	text string
}

type stopped struct{}

func (f *fatalTB) Helper() {}
func (f *fatalTB) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(stopped{})
}

// wantFatal checks that fn fails its test with a text that has these parts.
func wantFatal(t *testing.T, fn func(t testing.TB), parts ...string) {
	t.Helper()
	f := &fatalTB{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != (stopped{}) {
				panic(v)
			}
		}()
		fn(f)
	}()
	for _, p := range parts {
		if f.text == "" || !strings.Contains(f.text, p) {
			t.Errorf("the test failed with %q, want a part %q", f.text, p)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	env := waggletest.New(t)
	w := env.Worker(nil)
	register(w)
	r, err := env.Client.Enqueue(t.Context(), "order.ship", order{1}, &waggle.EnqueueOptions{Headers: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	wantFatal(t, func(t testing.TB) { waggletest.RequireEnqueued(t, env.Client, "none") }, `type "none"`, "none of that type")
	wantFatal(t, func(t testing.TB) {
		waggletest.RequireEnqueued(t, env.Client, "order.ship", waggletest.WithPayload(order{2}), waggletest.InQueue("q"),
			waggletest.WithHeader("k", "w"), waggletest.WithTags("x"))
	}, r.ID, `{"ID":2}`, "queue is default, want q", "header k is v, want w", "tags is [], want [x]")
	wantFatal(t, func(t testing.TB) { waggletest.RefuteEnqueued(t, env.Client, "order.ship") }, r.ID)
	wantFatal(t, func(t testing.TB) { waggletest.RunTask(t, w, "unknown", nil, nil) }, `type "unknown"`, "order.pay")
	wantFatal(t, func(t testing.TB) { waggletest.RunTask(t, w, "bad name", nil, nil) }, "bad name")

	loop := waggletest.New(t)
	lw := loop.Worker(nil)
	lw.HandleFunc("loop", func(ctx context.Context, t *waggle.Task) error {
		_, err := t.Client().Enqueue(ctx, "loop", nil, nil)
		return err
	}, nil)
	if _, err := loop.Client.Enqueue(t.Context(), "loop", nil, nil); err != nil {
		t.Fatal(err)
	}
	wantFatal(t, func(t testing.TB) { waggletest.Drain(t, loop, lw) }, "without end")
}
