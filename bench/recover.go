package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// recoverStagger is how much later each kill comes after the workers are up, so that the samples meet the tools'
// periodic searches in different phases.
const recoverStagger = 7 * time.Second

// recoveries measures for all queues how long a task waits whose worker was killed with SIGKILL. As that is mostly
// waiting, all samples are taken at the same time.
func (l *lab) recoveries(ctx context.Context) error {
	var runs []func() error
	for _, s := range l.specs {
		if !slices.Contains(s.measures(), recovery) {
			continue
		}
		of := l.results.Of[s.name]
		of.Recovery = make([]recovered, l.settings.RecoverySamples)
		runs = append(runs, func() error {
			err := l.recoverMany(ctx, s, of.Recovery)
			if err == nil {
				fmt.Fprintf(l.log, "recovery      %-12s %-14s %v\n", "", s.name, of.Recovery)
			}
			return err
		})
	}
	errs := make(chan error, len(runs))
	for _, run := range runs {
		go func() { errs <- run() }()
	}
	var err error
	for range runs {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (r recovered) String() string {
	if r.Capped {
		return fmt.Sprintf("> %.0f s", r.Seconds)
	}
	return fmt.Sprintf("%.1f s", r.Seconds)
}

// recoverMany fills results with samples of one contestant. The workers are started one pair after the other, so that
// they do not fight for the CPU.
func (l *lab) recoverMany(ctx context.Context, s *spec, results []recovered) error {
	errs := make(chan error, len(results))
	started := 0
	var err error
	for i := range results {
		var p *pair
		if p, err = l.startPair(ctx, s); err != nil {
			break
		}
		started++
		go func() {
			var err error
			results[i], err = p.measure(ctx, time.Duration(i)*recoverStagger, l.settings.recoveryCap())
			errs <- errors.Join(err, p.close())
		}()
	}
	for range started {
		err = errors.Join(err, <-errs)
	}
	return err
}

// pair is two workers on one store: one holds a task, the other has nothing to do.
type pair struct {
	store        backend
	holder, heir *child
}

func (l *lab) startPair(ctx context.Context, s *spec) (_ *pair, err error) {
	ctx, cancel := context.WithTimeout(ctx, stallLimit)
	defer cancel()
	p := new(pair)
	if p.store, err = l.stores.open(ctx, s.store); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.holder, err = startChild(s, job{Do: doHold, URL: p.store.URL()}); err != nil {
		return nil, err
	}
	if _, err = p.holder.await(ctx, evStarted); err != nil {
		return nil, err
	}
	if p.heir, err = startChild(s, job{Do: doTake, URL: p.store.URL()}); err != nil {
		return nil, err
	}
	_, err = p.heir.await(ctx, evReady)
	return p, err
}

// measure waits, kills the holder and returns how long it took until the heir's handler was called, at most limit.
func (p *pair) measure(ctx context.Context, wait, limit time.Duration) (recovered, error) {
	if err := sleep(ctx, time.Second+wait); err != nil {
		return recovered{}, err
	}
	select {
	case e := <-p.heir.events:
		return recovered{}, p.heir.failed(fmt.Errorf("%q while the other worker still held the task", e.Event))
	default:
	}
	killed := time.Now()
	p.holder.kill()
	waiting, cancel := context.WithTimeoutCause(ctx, limit, errCap)
	defer cancel()
	_, err := p.heir.await(waiting, evStarted)
	took := time.Since(killed)
	if errors.Is(err, errCap) {
		return recovered{Seconds: limit.Seconds(), Capped: true}, nil
	}
	if err == nil {
		err = p.settled(ctx)
	}
	return recovered{Seconds: took.Seconds()}, err
}

// errCap ends the waiting for a task that nobody took over.
var errCap = errors.New("the cap was reached")

// settled waits until the heir has ended its task and found nothing else left.
func (p *pair) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stallLimit)
	defer cancel()
	_, err := p.heir.await(ctx, evDone)
	return err
}

func (p *pair) close() error {
	for _, c := range []*child{p.holder, p.heir} {
		if c != nil {
			c.kill()
		}
	}
	return p.store.Close()
}
