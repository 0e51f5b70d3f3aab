package redisserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// awaitEvery is the pause between two looks at a condition that servers don't announce.
	awaitEvery = 10 * time.Millisecond
	// awaitMost bounds a wait whose context has no deadline, and lookMost one look, so that a paused server can't hang it.
	awaitMost = 60 * time.Second
	lookMost  = 2 * time.Second
)

// await looks until check returns nil. When ctx ends first, the error says what was waited for and what check said last.
func await(ctx context.Context, what string, check func(context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, awaitMost)
		defer cancel()
	}
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, lookMost)
		err := check(look)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		}
	}
}

// each runs f for every item at the same time and joins the errors.
func each[T any](items []T, f func(int, T) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(items))
	for i, item := range items {
		wg.Go(func() { errs[i] = f(i, item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
