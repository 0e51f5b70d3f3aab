package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// story prints what happens, with the time since it began.
type story struct {
	out     io.Writer
	colours bool
	start   time.Time
}

// newStory tells a story in colours if f is a terminal.
func newStory(f *os.File) *story {
	colours := term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &story{out: f, colours: colours, start: time.Now()}
}

// SGR codes.
const (
	dim   = "2"
	red   = "31"
	green = "32"
	blue  = "34"
	cyan  = "36"
)

func (s *story) paint(code, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *story) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// event prints who did what.
func (s *story) event(who, format string, args ...any) {
	s.line("%6.2fs  %s  %s", time.Since(s.start).Seconds(), s.paint(cyan, fmt.Sprintf("%-9s", who)), fmt.Sprintf(format, args...))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
