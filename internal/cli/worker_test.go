package cli

import (
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestWorkerStates has one worker in each state; damage comes before what the damaged record says.
func TestWorkerStates(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_900_000_000, 0)
	for want, w := range map[string]waggle.WorkerStatus{
		"alive":    {LeaseEnd: now.Add(time.Second), Directive: waggle.DirectServe},
		"quiet":    {LeaseEnd: now.Add(time.Second), Directive: waggle.DirectQuiet},
		"stopping": {LeaseEnd: now.Add(time.Second), Directive: waggle.DirectStop},
		"lost":     {LeaseEnd: now, Directive: waggle.DirectStop},
		"damaged":  {WorkerInfo: driver.WorkerInfo{ID: "w"}, Damaged: true},
	} {
		if got := workerRowOf(w, now).State; got != want {
			t.Errorf("%+v is %s, want %s", w, got, want)
		}
	}
}
