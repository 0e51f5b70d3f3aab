package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// recoverLimit is how long a recovery may take before the measurement is given up.
const recoverLimit = time.Minute

// recovery measures from SIGKILL of the process that runs a task to the start of its handler in another process, that
// was idle.
type recovery struct {
	*lab
	n int
}

func startRecovery(_ context.Context, l *lab) (probe, error) { return &recovery{lab: l}, nil }

func (r *recovery) close(context.Context) error { return nil }

func (r *recovery) round(ctx context.Context) error {
	r.n++
	for _, kind := range []struct {
		id    string
		lease time.Duration
		runs  int
	}{{recoverShort, time.Second, r.short}, {recoverLong, driver.DefaultLease, r.long}} {
		if r.n > kind.runs {
			continue
		}
		took, err := takeOver(ctx, filepath.Join(r.dir, fmt.Sprintf("%s-%d.db", kind.id, r.n)), kind.lease)
		if err != nil {
			return err
		}
		r.board.add(kind.id, took.Seconds())
		r.board.tasks++
	}
	return nil
}

// takeOver kills the process that runs a task and returns how long it took another one to start it.
func takeOver(ctx context.Context, store string, lease time.Duration) (took time.Duration, err error) {
	s, err := openStore(ctx, store)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	receipt, err := s.client.Enqueue(ctx, taskType, payloadOf(0), nil)
	if err != nil {
		return 0, err
	}
	victim, err := startChild(roleWorker, job{Store: store, Lease: lease, Hang: true})
	if err != nil {
		return 0, err
	}
	defer victim.kill()
	if _, err := victim.next(ctx, pickupLimit); err != nil {
		return 0, err
	}
	heir, err := startChild(roleWorker, job{Store: store, Lease: lease})
	if err != nil {
		return 0, err
	}
	defer heir.kill()
	if err := s.awaitWorkers(ctx, 2); err != nil {
		return 0, err
	}
	pause(ctx, rand.N(lease)) // at any point between two renewals
	killed := time.Now()
	victim.kill()
	e, err := heir.next(ctx, recoverLimit)
	if err != nil {
		return 0, err
	}
	if e.Crashes != 1 {
		return 0, fmt.Errorf("the task was taken over with %d crashes counted instead of 1", e.Crashes)
	}
	info, err := s.client.Wait(ctx, receipt.ID)
	if err == nil && info.State != driver.Completed {
		err = fmt.Errorf("the task ended as %s", info.State)
	}
	return e.At.Sub(killed), err
}

// awaitWorkers waits until so many workers are registered.
func (s *site) awaitWorkers(ctx context.Context, n int) error {
	for limit := time.Now().Add(pickupLimit); time.Now().Before(limit); pause(ctx, 10*time.Millisecond) {
		if workers, err := s.client.Workers(ctx); err != nil || len(workers) >= n {
			return err
		}
	}
	return fmt.Errorf("there are not %d workers after %v", n, pickupLimit)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// runWorker is the child: a worker that tells of every start of a handler.
func runWorker(ctx context.Context, j *job) (err error) {
	s, err := openStore(ctx, j.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	w, err := s.worker(&waggle.WorkerOptions{Lease: j.Lease}, func(t *waggle.Task) {
		at := time.Now()
		n, _ := numberOf(t.Payload) // the parent looks at it
		if err := tell(event{At: at, Number: n, Crashes: t.Crashes}); err != nil {
			panic(err) // the attempt fails, and the parent sees no start
		}
		if j.Hang {
			<-ctx.Done()
		}
	})
	if err != nil {
		return err
	}
	return w.Run(ctx)
}
