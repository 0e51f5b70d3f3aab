package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// What ended a command from outside, as causes of its context.
var (
	errInterrupted = errors.New("interrupted")
	errTerminated  = errors.New("terminated")
)

// lastMoment is how long a command has to leave things in order after the second signal.
const lastMoment = 2 * time.Second

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
					s.exit(ends)
				}
				cancel(causeOf(sig))
				s.run(&s.first)
			}
		}
	}()
	return ctx, s
}

// exit ends the process at once, or after a moment in which the functions of onLast have their effect.
func (s *signals) exit(again <-chan os.Signal) {
	if s.run(&s.last) > 0 {
		select {
		case <-time.After(lastMoment):
		case <-again:
		}
	}
	os.Exit(exitInterrupted)
}

func causeOf(sig os.Signal) error {
	if sig == syscall.SIGTERM {
		return errTerminated
	}
	return errInterrupted
}

func (s *signals) close() { s.stop() }

// run calls the functions of a list and returns how many there are.
func (s *signals) run(list *[]func()) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range *list {
		f()
	}
	return len(*list)
}

// onFirst runs f when the first signal comes; onLast when a second one is about to end the process.
// What onLast started has a moment to end.
func (s *signals) onFirst(f func()) { s.add(&s.first, f) }
func (s *signals) onLast(f func())  { s.add(&s.last, f) }

func (s *signals) add(list *[]func(), f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, f)
}
