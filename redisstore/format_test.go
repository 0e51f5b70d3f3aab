package redisstore_test

import (
	"errors"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/redisstore"
)

// TestOlderFormatIsBroughtUp opens a store of the first format: its tasks are there, it has the newest format, and a
// program that had it open, and would not know the new records, is refused.
func TestOlderFormatIsBroughtUp(t *testing.T) {
	t.Parallel()
	url := shared(t, redisserver.Redis)
	old := open(t, url, nil)
	task := []*driver.Task{{ID: "a", Type: "t"}}
	if _, err := old.Enqueue(t.Context(), task, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := redisstore.SetFormat(t.Context(), old, 1); err != nil {
		t.Fatal(err)
	}

	s := open(t, url, nil)
	records, err := s.Get(t.Context(), []string{"a"})
	if err != nil || records[0] == nil || records[0].State != driver.Available {
		t.Errorf("got %v, %v", records, err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.Schema != 2 {
		t.Errorf("got %+v, %v; want the format 2", info, err)
	}
	if _, err := old.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{}); !errors.Is(err, driver.ErrCorrupt) {
		t.Errorf("the older program enqueued: %v, want it to be refused", err)
	}
	if _, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{}); err != nil {
		t.Error(err)
	}
}

// TestNewerFormatIsRefused opens a store of a format that is not known.
func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	url := shared(t, redisserver.Redis)
	s := open(t, url, nil)
	if err := redisstore.SetFormat(t.Context(), s, 1000); err != nil {
		t.Fatal(err)
	}
	if got, err := redisstore.Open(t.Context(), url, nil); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("got %v, %v; want ErrUnsupported", got, err)
	}
}
