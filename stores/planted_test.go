package stores

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/planted"
)

// TestNoErrorTellsASecret opens URLs with a secret in each place in which somebody may write one.
func TestNoErrorTellsASecret(t *testing.T) {
	t.Chdir(t.TempDir())
	urls := make(chan string)
	var wg sync.WaitGroup
	for range 16 { // they wait for nobody
		wg.Go(func() {
			for raw := range urls {
				tellsNothing(t, raw)
			}
		})
	}
	for _, raw := range planted.URLs() {
		urls <- raw
	}
	close(urls)
	wg.Wait()
}

// FuzzNoErrorTellsASecret does so with anything in the middle of the secret.
func FuzzNoErrorTellsASecret(f *testing.F) {
	for _, shape := range planted.Shapes() {
		f.Add(shape, "-")
	}
	f.Fuzz(func(t *testing.T, shape, middle string) {
		if planted.Told(planted.With(shape, "")) == "" || !isAShape(shape) {
			t.Skip("no place for a secret")
		}
		tellsNothing(t, planted.With(shape, middle))
	})
}

// isAShape reports whether a shape is one of those whose host is known to be this machine.
func isAShape(shape string) bool {
	for _, s := range planted.Shapes() {
		if s == shape {
			return true
		}
	}
	return false
}

func tellsNothing(t *testing.T, raw string) {
	t.Helper()
	if said := Redact(raw); planted.Told(said) != "" {
		t.Errorf("Redact(%q) = %q", raw, said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	for how, open := range map[string]func(context.Context, string) (driver.Store, error){"Open": Open, "OpenExisting": OpenExisting} {
		store, err := open(ctx, raw)
		if err == nil { // a path with a strange name, say
			_ = store.Close()
			continue
		}
		if planted.Told(err.Error()) != "" {
			t.Errorf("%s(%q): %v", how, raw, err)
		}
	}
	if err := Check(raw); err != nil && planted.Told(err.Error()) != "" {
		t.Errorf("Check(%q): %v", raw, err)
	}
}
