// Package cron reads lines that say when a schedule fires, and tells the times.
//
// A line is one of
//
//	min hour day month weekday        five fields, as in crontab(5)
//	sec min hour day month weekday    six fields
//	@yearly @monthly @weekly @daily @midnight @hourly
//	@every 90s                        every so long, at least a second
//	@at 2026-12-24T18:00:00Z …        fixed times
//
// A field is *, a number, a range 1-5, each with a step /2, or a list of those with commas; months and weekdays have names
// too (jan, mon); 7 is Sunday; ? is *. L as the day is the month's last. As in crontab(5), where both day and weekday are
// restricted, either suffices.
//
// Times are of a zone, and a zone's clock is put forward and back. A line is about the clock on the wall:
//
//   - Where the clock is put back an hour comes twice. A line that names hours fires in the first of them only, so that a
//     nightly job runs once. A line whose hour is * or has a step from * fires in both, as it is about the time between its
//     ticks.
//   - Where the clock is put forward some times are not there. A line that names hours fires at the moment of the change
//     instead, once for all ticks that are left out together. A line whose hour is * leaves them out.
package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Line is a line that was read. A nil Line is none.
type Line struct {
	text                  string
	sec, min              uint64
	hour, day, month, dow uint64
	last                  bool // the month's last day is among the days
	anyDay, anyDow        bool
	anyHour               bool
	every                 time.Duration
	times                 []time.Time
}

// String returns the line as it was written.
func (l *Line) String() string { return l.text }

// Every returns the distance of the ticks of an @every line, 0 for others.
func (l *Line) Every() time.Duration { return l.every }

// maxEvery bounds an @every line.
const maxEvery = 100 * 366 * 24 * time.Hour

// Parse reads a line. Its errors are sentences.
func Parse(text string) (*Line, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, fmt.Errorf("the line is empty: write it like \"*/5 * * * *\", \"@daily\" or \"@every 30s\"")
	case len(text) > 4096:
		return nil, fmt.Errorf("the line has %d bytes, 4096 are allowed", len(text))
	case strings.HasPrefix(text, "@"):
		return parseWord(text)
	case strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ="):
		return nil, fmt.Errorf("the zone is not part of the line %q: it is an option of the schedule", text)
	}
	l := &Line{text: text}
	fields := strings.Fields(text)
	switch len(fields) {
	case 5:
		fields = append([]string{"0"}, fields...)
	case 6:
	default:
		return nil, fmt.Errorf("the line %q has %d fields, and should have five (minute hour day month weekday) or six, with seconds before them", text, len(fields))
	}
	for i, f := range fields {
		if err := l.field(i, f); err != nil {
			return nil, fmt.Errorf("the line %q: %w", text, err)
		}
	}
	if !l.possible() {
		return nil, fmt.Errorf("the line %q never fires: no such day exists", text)
	}
	return l, nil
}

var words = map[string]string{"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *"}

func parseWord(text string) (*Line, error) {
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	if plain, ok := words[word]; ok && rest == "" {
		l, err := Parse(plain)
		if err == nil {
			l.text = text
		}
		return l, err
	}
	switch word {
	case "@every":
		return parseEvery(text, rest)
	case "@at":
		return parseTimes(text, rest)
	}
	return nil, fmt.Errorf("the line %q is not known: use @yearly, @monthly, @weekly, @daily, @hourly, @every 30s or @at with times", text)
}

func parseEvery(text, rest string) (*Line, error) {
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the line %q: %q is not a duration: write it like 90s or 1h30m", text, rest)
	case d < time.Second || d > maxEvery:
		return nil, fmt.Errorf("the line %q: the time between two ticks must be between a second and 100 years", text)
	case d%time.Millisecond != 0:
		return nil, fmt.Errorf("the line %q: the time between two ticks must be whole milliseconds", text)
	}
	return &Line{text: text, every: d}, nil
}

func parseTimes(text, rest string) (*Line, error) {
	l := &Line{text: text}
	for _, f := range strings.Fields(strings.ReplaceAll(rest, ",", " ")) {
		t, err := time.Parse(time.RFC3339, f)
		if err != nil {
			return nil, fmt.Errorf("the line %q: %q is not a time: write it like 2026-12-24T18:00:00+01:00", text, f)
		}
		if t.Year() < 1970 || t.Year() > 9998 {
			return nil, fmt.Errorf("the line %q: the year of %q is not between 1970 and 9998", text, f)
		}
		if n := len(l.times); n > 0 && !t.After(l.times[n-1]) {
			return nil, fmt.Errorf("the line %q: the times must be in ascending order", text)
		}
		l.times = append(l.times, t.UTC())
	}
	if len(l.times) == 0 {
		return nil, fmt.Errorf("the line %q names no time", text)
	}
	return l, nil
}

// bounds are the fields, in their order.
var bounds = []struct {
	what     string
	low, top int
	names    string
}{
	{"second", 0, 59, ""}, {"minute", 0, 59, ""}, {"hour", 0, 23, ""}, {"day of the month", 1, 31, ""},
	{"month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"}, {"day of the week", 0, 7, "sun mon tue wed thu fri sat"},
}

const (
	fieldSec = iota
	fieldMin
	fieldHour
	fieldDay
	fieldMonth
	fieldDow
)

func (l *Line) field(i int, text string) error {
	set, star := uint64(0), false
	for part := range strings.SplitSeq(text, ",") {
		if i == fieldDay && (part == "L" || part == "l") {
			l.last = true
			continue
		}
		one, any, err := parsePart(i, part)
		if err != nil {
			return err
		}
		set |= one
		star = star || any
	}
	switch i {
	case fieldSec:
		l.sec = set
	case fieldMin:
		l.min = set
	case fieldHour:
		l.hour, l.anyHour = set, star
	case fieldDay:
		l.day, l.anyDay = set, star
	case fieldMonth:
		l.month = set
	case fieldDow:
		l.dow, l.anyDow = set&0x7f|set>>7&1, star
	}
	return nil
}

// parsePart reads one element of a list. star says that it begins with a *.
func parsePart(i int, part string) (set uint64, star bool, err error) {
	b := bounds[i]
	span, stepText, stepped := strings.Cut(part, "/")
	step := 1
	if stepped {
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > b.top-b.low+1 {
			return 0, false, fmt.Errorf("the step %q of the %s is not between 1 and %d", stepText, b.what, b.top-b.low+1)
		}
	}
	low, top := b.low, b.top
	switch from, to, ranged := strings.Cut(span, "-"); {
	case span == "*" || span == "?":
		star = true
		if i == fieldDow {
			top = 6
		}
	case ranged:
		if low, err = number(i, from); err == nil {
			top, err = number(i, to)
		}
		if err == nil && low > top {
			err = fmt.Errorf("the range %q of the %s runs backwards", span, b.what)
		}
	default:
		low, err = number(i, span)
		if !stepped {
			top = low
		}
	}
	if err != nil {
		return 0, false, err
	}
	for v := low; v <= top; v += step {
		set |= 1 << v
	}
	return set, star, nil
}

func number(i int, text string) (int, error) {
	b := bounds[i]
	for n, name := range strings.Fields(b.names) {
		if strings.EqualFold(name, text) {
			return n + b.low, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || text[0] == '+' || text[0] == '-' {
		return 0, fmt.Errorf("%q is no %s", text, b.what)
	}
	if v < b.low || v > b.top {
		return 0, fmt.Errorf("the %s %d is not between %d and %d", b.what, v, b.low, b.top)
	}
	return v, nil
}

// possible reports whether any day of any year fits.
func (l *Line) possible() bool {
	if l.last || l.anyDay || !l.anyDow { // with a weekday beside the days it can fire on that
		return true
	}
	for m, days := range []int{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31} {
		if l.month>>(m+1)&1 == 1 && bits.TrailingZeros64(l.day) <= days {
			return true
		}
	}
	return false
}
