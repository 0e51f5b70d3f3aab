package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// What ended a command from outside, as causes of its context.
var (
	errInterrupted = errors.New("interrupted")
	errTerminated  = errors.New("terminated")
)

// signals turns the first SIGINT or SIGTERM into the end of a context, and the second into the end of the process.
type signals struct {
	stop func()

	mu    sync.Mutex
	first []func() // told of the first signal
	last  []func() // run before the process ends at once
}

// watchSignals returns a context that the first signal ends, with its cause.
//
// SIGPIPE is caught and dropped, not ignored: a write to a closed pipe then fails with EPIPE, so that the command ends
// in order, and programs that it starts have the default again.
func watchSignals(parent context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancelCause(parent)
	pipe, ends := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(pipe, syscall.SIGPIPE)
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	s := &signals{}
	s.stop = sync.OnceFunc(func() {
		signal.Stop(pipe)
		signal.Stop(ends)
		close(done)
		cancel(context.Canceled)
	})
	go func() {
		for count := 0; ; count++ {
			select {
			case <-done:
				return
			case sig := <-ends:
				if count > 0 {
					s.run(&s.last)
					os.Exit(exitInterrupted)
				}
				cancel(causeOf(sig))
				s.run(&s.first)
			}
		}
	}()
	return ctx, s
}

func causeOf(sig os.Signal) error {
	if sig == syscall.SIGTERM {
		return errTerminated
	}
	return errInterrupted
}

func (s *signals) close() { s.stop() }

func (s *signals) run(list *[]func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range *list {
		f()
	}
}

// onFirst runs f when the first signal comes; onLast when a second one is about to end the process.
func (s *signals) onFirst(f func()) { s.add(&s.first, f) }
func (s *signals) onLast(f func())  { s.add(&s.last, f) }

func (s *signals) add(list *[]func(), f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, f)
}
