package web

import (
	"fmt"
	"testing"
	"time"
)

// A client has its burst, then its rate, and says nothing about others; the table of clients stays bounded.
func TestBuckets(t *testing.T) {
	t.Parallel()
	b := &buckets{rate: 10, burst: 20}
	now := time.Unix(0, 0)
	taken := 0
	for ; b.take("a", now) == 0; taken++ {
		if taken > 100 {
			t.Fatal("no limit")
		}
	}
	if taken != 20 {
		t.Errorf("a burst of %d, want 20", taken)
	}
	if wait := b.take("a", now); wait != 100*time.Millisecond {
		t.Errorf("wait %v, want 100ms", wait)
	}
	if b.take("b", now) > 0 {
		t.Error("another client waits")
	}
	if b.take("a", now.Add(101*time.Millisecond)) > 0 {
		t.Error("it still waits when its time has come")
	}
	for i := range 3 * mostBuckets {
		b.take(fmt.Sprint(i), now)
	}
	if n := len(b.byKey); n > mostBuckets {
		t.Errorf("%d buckets", n)
	}
}
