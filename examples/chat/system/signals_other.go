//go:build !unix

package system

import (
	"errors"
	"os"
)

var errNoSignals = errors.New("this operating system can't freeze a process")

func freeze(*os.Process) error     { return errNoSignals }
func thaw(*os.Process) error       { return errNoSignals }
func askToEnd(p *os.Process) error { return p.Kill() }
