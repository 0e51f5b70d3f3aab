package execwork

import (
	"bytes"
	"strings"
)

const (
	maxLine = 4 << 10 // bytes of a log line; longer ones are split
	maxTail = 4 << 10 // bytes of standard error kept for the error's text
)

// lines splits what is written to it into lines, hands each to log, and remembers the last of them.
type lines struct {
	log  func(line string)
	part []byte // of a line without its end
	last []byte
}

// Write takes the next piece. It never fails.
func (l *lines) Write(p []byte) (int, error) {
	l.last = append(l.last, p...)
	if len(l.last) > 2*maxTail {
		l.last = append(l.last[:0], l.last[len(l.last)-maxTail:]...)
	}
	for rest := p; len(rest) > 0; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		room := maxLine - len(l.part)
		if len(line) > room {
			line, after, found = rest[:room], rest[room:], true
		}
		l.part, rest = append(l.part, line...), after
		if found {
			l.flush()
		}
	}
	return len(p), nil
}

// flush hands over the line that has begun.
func (l *lines) flush() {
	line := strings.TrimRight(strings.ToValidUTF8(string(l.part), "\uFFFD"), "\r")
	l.part = l.part[:0]
	if line != "" && l.log != nil {
		l.log(line)
	}
}

// tail returns the last lines, as many as fit.
func (l *lines) tail() string {
	text := l.last
	if len(text) > maxTail {
		text = text[len(text)-maxTail:]
		if _, after, found := bytes.Cut(text, []byte("\n")); found && len(after) > 0 {
			text = after
		}
		return "… " + strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD"))
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD"))
}
