// Package guard runs code that Waggle did not write (methods of a user's errors and values, middleware, callbacks), so
// that nothing it does harms more than what it was called for.
package guard

import (
	"fmt"
	"runtime/debug"
)

// Fault tells how foreign code ended that did not return. It is an error.
type Fault struct {
	Text  string // "panic: …", or that the code ended its goroutine
	Stack string // of the panic; "" after runtime.Goexit
}

// Error implements error.
func (f *Fault) Error() string { return f.Text }

const exited = "the code ended its goroutine (runtime.Goexit)"

// Call runs f on the calling goroutine and returns nil, or how it panicked. If f calls runtime.Goexit the caller's
// goroutine ends, as f has asked for: where that must not be, use [Apart].
func Call(f func()) (fault *Fault) {
	defer func() {
		if v := recover(); v != nil {
			fault = Panicked(v)
		}
	}()
	f()
	return nil
}

// Apart runs f on a goroutine of its own and waits for it. It returns nil if f returned, else how it ended.
func Apart(f func()) *Fault {
	fault := &Fault{Text: exited}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fault = Call(f)
	}()
	<-done
	return fault
}

// Panicked returns the fault of a panic that was just recovered, with the stack that led to it.
func Panicked(v any) *Fault {
	return &Fault{Text: "panic: " + text(v), Stack: string(debug.Stack())}
}

// text returns what a panic's value says. Its methods are foreign code too.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	var s string
	if fault := Apart(func() { s = fmt.Sprint(v) }); fault != nil {
		return fmt.Sprintf("a %T that can't be shown", v)
	}
	return s
}
