package execwork

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// TestAKeeperThatIsStopped: nothing continues a keeper that somebody has stopped. A start does not wait for it without
// bound, the command has not run and will not, and the next one has a new keeper. Not beside other tests: who loses a keeper
// kills all that is below its process, and so the others' keepers.
func TestAKeeperThatIsStopped(t *testing.T) {
	c := command(t, time.Second, "true")
	k := c.launcher.(*kept)
	if _, err := c.Run(t.Context(), &Input{}); err != nil {
		t.Fatal(err)
	}
	old := k.cmd.Process.Pid
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	k.patience = time.Millisecond
	if _, err := c.Run(t.Context(), &Input{}); !errors.Is(err, ErrNotStarted) {
		t.Errorf("with a keeper that is stopped: %v", err)
	}
	if err := syscall.Kill(old, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the keeper that was stopped is still there: %v", err)
	}
	k.patience = startPatience
	if _, err := c.Run(t.Context(), &Input{}); err != nil {
		t.Errorf("the next command: %v", err)
	}
}
