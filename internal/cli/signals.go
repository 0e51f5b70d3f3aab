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
	hang chan os.Signal // SIGHUP, if a command asks for it

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
	s := &signals{hang: make(chan os.Signal, 1)}
	s.stop = sync.OnceFunc(func() {
		signal.Stop(pipe)
		signal.Stop(ends)
		signal.Stop(s.hang)
		close(done)
		cancel(context.Canceled)
	})
	go func() {
		for first := true; ; first = false {
			var sig os.Signal
			select {
			case <-done:
				return
			case sig = <-ends:
			case sig = <-s.hang:
			}
			switch {
			case first:
				cancel(causeOf(sig))
				s.run(&s.first)
			case sig != syscall.SIGHUP: // a terminal that goes away hurries nobody
				s.exit(ends)
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
	if sig == os.Interrupt {
		return errInterrupted
	}
	return errTerminated
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

// hangup has SIGHUP, too, end the command in order, unless it was started with that signal ignored, as by nohup.
func (s *signals) hangup() {
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(s.hang, syscall.SIGHUP)
	}
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
