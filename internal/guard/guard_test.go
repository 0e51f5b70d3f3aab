package guard

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

type panics struct{}

func (panics) Error() string { panic("in Error") }

type exits struct{}

func (exits) String() string { runtime.Goexit(); return "" }

func TestApart(t *testing.T) {
	t.Parallel()
	var typedNil *fmt.Stringer
	for name, tt := range map[string]struct {
		f     func()
		want  string
		stack bool
	}{
		"returns":              {f: func() {}},
		"panics":               {func() { panic("boom") }, "panic: boom", true},
		"panics with an error": {func() { panic(errors.New("boom")) }, "panic: boom", true},
		"panics with nil":      {func() { panic(nil) }, "panic: panic called with nil argument", true},
		"nil dereference":      {func() { _ = (*typedNil).String() }, "panic: runtime error: invalid memory address", true},
		"value that panics":    {func() { panic(panics{}) }, "panic: ", true},
		"value that exits":     {func() { panic(exits{}) }, "panic: a guard.exits that can't be shown", true},
		"exits":                {runtime.Goexit, exited, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault := Apart(tt.f)
			if tt.want == "" {
				if fault != nil {
					t.Fatalf("got %v", fault)
				}
				return
			}
			if fault == nil || !strings.HasPrefix(fault.Error(), tt.want) || (fault.Stack != "") != tt.stack {
				t.Errorf("got %+v, want %q", fault, tt.want)
			}
		})
	}
}

func TestCallKeepsTheGoroutine(t *testing.T) {
	t.Parallel()
	if fault := Call(func() { panic("boom") }); fault == nil || !strings.Contains(fault.Stack, "TestCallKeepsTheGoroutine") {
		t.Errorf("got %+v, want the stack of this goroutine", fault)
	}
}
