package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// settleTime is how long a worker that was just started is left alone.
const settleTime = 1500 * time.Millisecond

// idle watches `waggle work` while there is nothing to do.
type idle struct {
	*lab
	n int
}

func startIdle(_ context.Context, l *lab) (probe, error) { return &idle{lab: l}, nil }

func (i *idle) close(context.Context) error { return nil }

func (i *idle) round(ctx context.Context) error {
	i.n++
	path := filepath.Join(i.dir, fmt.Sprintf("idle-%d.db", i.n))
	c, err := startChild(roleWaggle, job{}, "--store", "sqlite:"+path, "work", "--", "true")
	if err != nil {
		return err
	}
	defer c.kill()
	pause(ctx, settleTime)
	if err := i.atWork(ctx, path); err != nil {
		return err
	}
	before, err := cpuTime(c.cmd.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	pause(ctx, i.sizes.idle)
	after, err := cpuTime(c.cmd.Process.Pid)
	if err != nil {
		return err
	}
	i.board.add(idleCPU, 100*(after-before).Seconds()/time.Since(began).Seconds())
	peak, err := peakMemory(c.cmd.Process.Pid)
	i.board.add(idleMemory, peak)
	return err
}

// atWork returns an error unless the worker is there.
func (i *idle) atWork(ctx context.Context, path string) error {
	s, err := openStore(ctx, path)
	if err != nil {
		return err
	}
	if err := s.awaitWorkers(ctx, 1); err != nil {
		_ = s.close(ctx) // the other error says more
		return err
	}
	return s.close(ctx)
}
