//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

// cpuTime is not measured here.
func cpuTime() time.Duration { return 0 }

// treeCPU is not measured here.
func treeCPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

// dieWithParent is not offered here.
func dieWithParent(*syscall.SysProcAttr) {}
