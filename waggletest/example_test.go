package waggletest_test

import (
	"context"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/waggletest"
)

// A test of a handler.
func Example() {
	_ = func(t *testing.T) {
		env := waggletest.New(t)
		w := env.Worker(nil)
		waggle.Handle(w, "greet", func(_ context.Context, t *waggle.Task, name string) error {
			return t.SetResult("hello " + name)
		}, nil)
		info := waggletest.RunTask(t, w, "greet", "Ada", nil)
		if got, err := waggle.Result[string](info); err != nil || got != "hello Ada" {
			t.Errorf("result %q, %v", got, err)
		}
	}
}
