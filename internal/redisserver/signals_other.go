//go:build !unix

package redisserver

import (
	"errors"
	"os"
)

func pause(*os.Process) error    { return errors.ErrUnsupported }
func resume(*os.Process) error   { return errors.ErrUnsupported }
func askToEnd(*os.Process) error { return errors.ErrUnsupported }
