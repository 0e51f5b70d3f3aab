package bareloop_test

import (
	"path/filepath"
	"testing"

	"github.com/waggleq/waggle/internal/bareloop"
)

func TestEveryRowIsProcessedOnce(t *testing.T) {
	t.Parallel()
	l, err := bareloop.Open(filepath.Join(t.TempDir(), "bare.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range 3 {
		if err := l.Enqueue([]byte("payload"), 100); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{200, 100, 0} {
		if n, err := l.Process(200); err != nil || n != want {
			t.Errorf("processed %d, error %v; want %d", n, err, want)
		}
	}
}
