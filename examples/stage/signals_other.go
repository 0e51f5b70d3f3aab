//go:build !unix

package stage

import (
	"errors"
	"os"
)

var errNoSignals = errors.New("this operating system can't freeze a process")

// Freeze can't be done here.
func Freeze(*os.Process) error { return errNoSignals }

// Thaw can't be done here.
func Thaw(*os.Process) error { return errNoSignals }

// AskToEnd kills the process: it can't be asked.
func AskToEnd(p *os.Process) error { return p.Kill() }
