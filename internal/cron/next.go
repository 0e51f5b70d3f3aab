package cron

import (
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// horizon is how far ahead is looked: 29 February and a weekday meet again within 40 years.
const horizon = 45

// Next returns the first tick after a time, in zone. anchor is what the ticks of an @every line are counted from. Zero: there
// is none, or none before the year 9999.
func (l *Line) Next(after time.Time, zone *time.Location, anchor time.Time) time.Time {
	switch {
	case l.every > 0:
		return l.nextEvery(after, anchor).In(zone)
	case l.times != nil:
		for _, t := range l.times {
			if t.After(after) {
				return t.In(zone)
			}
		}
		return time.Time{}
	}
	t := l.nextCron(after, zone)
	if t.Year() > 9998 {
		return time.Time{}
	}
	return t
}

// Prev returns the last tick that is not after a time and after since; zero: there is none.
func (l *Line) Prev(notAfter, since time.Time, zone *time.Location, anchor time.Time) time.Time {
	if l.every > 0 && since.Before(notAfter) {
		t := l.nextEvery(notAfter, anchor).Add(-l.every)
		if t.After(since) {
			return t.In(zone)
		}
		return time.Time{}
	}
	// Halve the span until the ticks in it are few.
	from := since
	for {
		middle := from.Add(notAfter.Sub(from) / 2)
		t := l.Next(middle, zone, anchor)
		if t.IsZero() || t.After(notAfter) || !middle.After(from) {
			break
		}
		from = middle
	}
	last := time.Time{}
	for t := l.Next(from, zone, anchor); !t.IsZero() && !t.After(notAfter); t = l.Next(t, zone, anchor) {
		last = t
	}
	return last
}

func (l *Line) nextEvery(after, anchor time.Time) time.Time {
	d := after.Sub(anchor)
	n := d / l.every
	if d < 0 {
		return anchor.Add(l.every)
	}
	return anchor.Add((n + 1) * l.every)
}

// nextCron walks over the days of the zone from that of a time on, and takes each day's first tick after it.
func (l *Line) nextCron(after time.Time, zone *time.Location) time.Time {
	if after.Year() > 9998 {
		return time.Time{}
	}
	local := after.In(zone)
	year, month, day := local.Date()
	// A change of the clock can put a tick of the day before behind midnight, or a day's date can come twice.
	d := time.Date(year, month, day-1, 12, 0, 0, 0, time.UTC)
	for d.Year() <= year+horizon {
		if l.month>>d.Month()&1 == 0 {
			d = time.Date(d.Year(), d.Month()+1, 1, 12, 0, 0, 0, time.UTC)
			continue
		}
		if l.fits(d) {
			if t := l.firstOfDay(d, after, zone); !t.IsZero() {
				return t
			}
		}
		d = d.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// fits reports whether a date is among the line's days.
func (l *Line) fits(d time.Time) bool {
	day := l.day>>d.Day()&1 == 1 || l.last && d.AddDate(0, 0, 1).Day() == 1
	dow := l.dow>>int(d.Weekday())&1 == 1
	if l.anyDay || l.anyDow {
		return day && dow
	}
	return day || dow
}

// span is a stretch of time with one offset from UTC.
type span struct {
	from, to time.Time // to is not part of it
	offset   int       // seconds
}

// spansOf returns the stretches of a date, from its midnight to the next, as the wall clock shows it.
func spansOf(d time.Time, zone *time.Location) []span {
	// The date lies somewhere within these two days and a half, whatever the offset.
	at := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC).Add(-30 * time.Hour)
	end := at.Add(84 * time.Hour)
	var list []span
	for at.Before(end) {
		_, offset := at.In(zone).Zone()
		_, to := at.In(zone).ZoneBounds()
		if to.IsZero() || to.After(end) {
			to = end
		}
		from := at
		wall0 := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC).Add(-time.Duration(offset) * time.Second)
		wall1 := wall0.Add(24 * time.Hour)
		s := span{from: latest(from, wall0), to: earliest(to, wall1), offset: offset}
		if s.from.Before(s.to) {
			list = append(list, s)
		}
		at = to
	}
	return list
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// firstOfDay returns the first tick of a date that is after a time.
func (l *Line) firstOfDay(d, after time.Time, zone *time.Location) time.Time {
	spans := spansOf(d, zone)
	var best time.Time
	take := func(t time.Time) {
		if t.After(after) && (best.IsZero() || t.Before(best)) {
			best = t
		}
	}
	shown := -1 // the greatest second of the day that the wall clock has shown
	for _, s := range spans {
		wall := func(t time.Time) int { return int(t.Unix()+int64(s.offset)) - int(dayStart(d)) }
		from, to := wall(s.from), wall(s.to)
		if !l.anyHour {
			if shown+1 < from && (l.clockIn(shown+1, from) >= 0) {
				take(s.from) // what was left out
			}
			from = max(from, shown+1) // what comes a second time
		}
		for sec := from; sec < to; {
			hit := l.clockIn(sec, to)
			if hit < 0 {
				break
			}
			t := time.Unix(dayStart(d)+int64(hit)-int64(s.offset), 0)
			if t.After(after) {
				take(t)
				break
			}
			sec = max(hit+1, wall(after))
		}
		shown = max(shown, to-1)
	}
	if !l.anyHour && shown < 86399 && len(spans) > 0 && l.clockIn(shown+1, 86400) >= 0 {
		take(spans[len(spans)-1].to) // the day's end was left out
	}
	if len(spans) == 0 && !l.anyHour && l.clockIn(0, 86400) >= 0 {
		take(skippedDay(d, zone))
	}
	if best.IsZero() {
		return best
	}
	return best.In(zone)
}

func dayStart(d time.Time) int64 {
	return time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC).Unix()
}

// skippedDay returns the moment at which a whole date was left out, as where the date line was moved.
func skippedDay(d time.Time, zone *time.Location) time.Time {
	at := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC).Add(-30 * time.Hour)
	for end := at.Add(84 * time.Hour); at.Before(end); {
		_, to := at.In(zone).ZoneBounds()
		if to.IsZero() {
			break
		}
		if to.In(zone).Format(time.DateOnly) > d.Format(time.DateOnly) {
			return to
		}
		at = to
	}
	return time.Time{}
}

// clockIn returns the first second of the day from one to before another at which the clock fits, -1 if there is none.
func (l *Line) clockIn(from, to int) int {
	for from < to {
		h, m, s := from/3600, from/60%60, from%60
		if l.hour>>h&1 == 0 {
			if h = following(l.hour, h+1); h < 0 {
				return -1
			}
			from = h * 3600
			continue
		}
		if l.min>>m&1 == 0 {
			if m = following(l.min, m+1); m < 0 {
				from = (h + 1) * 3600
			} else {
				from = h*3600 + m*60
			}
			continue
		}
		if s = following(l.sec, s); s < 0 {
			from = h*3600 + (m+1)*60
			continue
		}
		if at := h*3600 + m*60 + s; at < to {
			return at
		}
		return -1
	}
	return -1
}

// following returns the first number of a set from one on, -1 if there is none.
func following(set uint64, from int) int {
	if from > 63 || set>>from == 0 {
		return -1
	}
	return from + bits.TrailingZeros64(set>>from)
}

// Note says in words what a change of the clock does to a tick, "" if nothing: before is the tick before it.
func (l *Line) Note(tick time.Time, zone *time.Location) string {
	if l.every > 0 || l.times != nil {
		return ""
	}
	local := tick.In(zone)
	start, _ := local.ZoneBounds()
	hits := l.month>>local.Month()&1 == 1 && l.clockIn(seconds(local), seconds(local)+1) >= 0
	if !start.IsZero() && start.Equal(tick) && !hits {
		return fmt.Sprintf("the clock is put forward: what was to fire at a time that does not exist fires at %s", local.Format("15:04:05"))
	}
	for _, other := range twins(tick, zone) {
		switch {
		case l.anyHour && other.Before(tick):
			return "the clock was put back: this time of day comes a second time"
		case !l.anyHour && other.After(tick):
			return fmt.Sprintf("the clock is put back: %s comes twice, and the schedule fires in the first only", local.Format("15:04:05"))
		}
	}
	return ""
}

func seconds(t time.Time) int { return t.Hour()*3600 + t.Minute()*60 + t.Second() }

// twins returns the other moments at which the wall clock shows what it does at a time.
func twins(t time.Time, zone *time.Location) []time.Time {
	local := t.In(zone)
	_, offset := local.Zone()
	start, end := local.ZoneBounds()
	var list []time.Time
	for _, edge := range []time.Time{start.Add(-time.Second), end} {
		if start.IsZero() && edge.Before(t) || end.IsZero() && !edge.Before(t) {
			continue
		}
		_, there := edge.In(zone).Zone()
		other := t.Add(time.Duration(offset-there) * time.Second)
		if _, got := other.In(zone).Zone(); got == there && !other.Equal(t) {
			list = append(list, other)
		}
	}
	slices.SortFunc(list, time.Time.Compare)
	return list
}
