package cron

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var zones = []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"}

// moreZones have what these do not: changes at midnight, dates that were left out, a summer an hour back.
var moreZones = []string{"America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia", "Africa/Casablanca", "Asia/Tehran", "America/Havana", "Antarctica/Troll", "Europe/Dublin"}

func load(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func parse(t testing.TB, text string) *Line {
	t.Helper()
	l, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// scan is what Next is compared with: it looks at the wall clock of every minute from a time to another, in the sentences of
// the package comment, and knows nothing of spans.
func scan(l *Line, from, to time.Time, zone *time.Location) []time.Time {
	const day = "2006-01-02 15:04"
	wallOf := func(t time.Time) time.Time {
		local := t.In(zone)
		return time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
	}
	matches := func(wall time.Time) bool {
		return l.min>>wall.Minute()&1 == 1 && l.hour>>wall.Hour()&1 == 1 && l.month>>wall.Month()&1 == 1 && l.fits(wall)
	}
	seen := map[string]bool{}
	var list []time.Time
	last := wallOf(from.Add(-27 * time.Hour))
	for t := from.Add(-26 * time.Hour); t.Before(to); t = t.Add(time.Minute) {
		wall := wallOf(t)
		hit := matches(wall)
		if !l.anyHour {
			hit = hit && !seen[wall.Format(day)]
			for w := last.Add(time.Minute); w.Before(wall); w = w.Add(time.Minute) {
				hit = hit || matches(w) && !seen[w.Format(day)]
				seen[w.Format(day)] = true
			}
			seen[wall.Format(day)] = true
		}
		if wall.After(last) {
			last = wall
		}
		if hit && !t.Before(from) {
			list = append(list, t)
		}
	}
	return list
}

func randomField(r *rand.Rand, low, top int) string {
	one := func() int { return low + r.IntN(top-low+1) }
	switch r.IntN(6) {
	case 0, 1:
		return "*"
	case 2:
		return fmt.Sprintf("*/%d", 1+r.IntN((top-low)/2+1))
	case 3:
		a, b := one(), one()
		return fmt.Sprintf("%d-%d/%d", min(a, b), max(a, b), 1+r.IntN(3))
	case 4:
		return fmt.Sprintf("%d,%d", one(), one())
	}
	return fmt.Sprint(one())
}

func randomLine(r *rand.Rand) *Line {
	for {
		text := strings.Join([]string{randomField(r, 0, 59), randomField(r, 0, 23), randomField(r, 1, 31), randomField(r, 1, 12), randomField(r, 0, 7)}, " ")
		if r.IntN(2) == 0 { // most lines name hours of the night, when clocks change
			f := strings.Fields(text)
			f[1], f[2], f[3], f[4] = randomField(r, 0, 3), "*", "*", "*"
			text = strings.Join(f, " ")
		}
		if l, err := Parse(text); err == nil {
			return l
		}
	}
}

// changes returns the moments of the last fifty years, and the next ten, at which a zone's clock was changed.
func changes(zone *time.Location) []time.Time {
	var list []time.Time
	at := time.Date(1976, 1, 1, 0, 0, 0, 0, time.UTC)
	for end := time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC); at.Before(end); {
		_, next := at.In(zone).ZoneBounds()
		if next.IsZero() || next.After(end) {
			break
		}
		list = append(list, next)
		at = next
	}
	return list
}

// TestNextAgainstAMinuteScan compares Next, over hours round every change of the clock and at random, with a scan of all
// minutes.
func TestNextAgainstAMinuteScan(t *testing.T) {
	t.Parallel()
	againstScan(t, 1, 9, 20, 7)
}

// TestSoakMinuteScan does the same over days, with more lines, and others each time.
func TestSoakMinuteScan(t *testing.T) {
	if os.Getenv("WAGGLE_SOAK") == "" {
		t.Skip("a long test: set WAGGLE_SOAK to a duration such as 10m, or run make soak")
	}
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	againstScan(t, 3, 30, 54, seed)
}

// againstScan compares some lines in windows of so many hours, which begin up to lead hours before a change.
func againstScan(t *testing.T, lines, lead, hours int, seed uint64) {
	for _, name := range append(append([]string{}, zones...), moreZones...) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone := load(t, name)
			r := rand.New(rand.NewPCG(seed, 11))
			starts := changes(zone)
			for range 40 {
				starts = append(starts, time.Unix(r.Int64N(60*365*86400)+6*365*86400, 0))
			}
			for _, s := range starts {
				from := s.Add(-time.Duration(r.Int64N(int64(lead*60)))*time.Minute - time.Hour).Truncate(time.Minute)
				to := from.Add(time.Duration(hours) * time.Hour)
				for range lines {
					compare(t, randomLine(r), from, to, zone)
				}
			}
		})
	}
}

func compare(t *testing.T, l *Line, from, to time.Time, zone *time.Location) {
	t.Helper()
	want := scan(l, from, to, zone)
	at := from.Add(-time.Nanosecond)
	for _, w := range want {
		got := l.Next(at, zone, time.Time{})
		if !got.Equal(w) {
			t.Fatalf("%q after %v: got %v, want %v", l, at.In(zone), got, w.In(zone))
		}
		at = got
	}
	if got := l.Next(at, zone, time.Time{}); !got.IsZero() && got.Before(to) {
		t.Fatalf("%q after %v: got %v, want none before %v", l, at.In(zone), got, to.In(zone))
	}
	if len(want) > 0 {
		if got := l.Prev(to.Add(-time.Second), from.Add(-time.Second), zone, time.Time{}); !got.Equal(want[len(want)-1]) {
			t.Fatalf("%q: the last tick before %v is %v, want %v", l, to.In(zone), got, want[len(want)-1].In(zone))
		}
	}
}

func TestKnownChangesOfTheClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, line, after, want, note string }{
		{"Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00", "put forward"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00", "first only"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00", ""},
		{"Europe/Berlin", "30 * * * *", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "second time"},
		{"Europe/Berlin", "30 * * * *", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00", ""},
		{"America/New_York", "0 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00", "put forward"},
		{"America/New_York", "15 1 * * *", "2026-10-31T12:00:00-04:00", "2026-11-01T01:15:00-04:00", "first only"},
		{"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00", "put forward"},
		{"Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00", "2026-04-05T01:45:00+11:00", "first only"},
		{"Asia/Kolkata", "0 0 1 1 *", "2026-01-01T00:00:00+05:30", "2027-01-01T00:00:00+05:30", ""},
		{"Pacific/Apia", "0 9 * * *", "2011-12-29T10:00:00-10:00", "2011-12-31T00:00:00+14:00", "put forward"},
		{"UTC", "0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z", ""},
		{"UTC", "*/10 * * * * *", "2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z", ""},
		{"UTC", "0 12 L * *", "2026-02-01T00:00:00Z", "2026-02-28T12:00:00Z", ""},
		{"UTC", "0 0 13 * fri", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z", ""},
		{"UTC", "@at 2026-02-01T01:00:00+01:00 2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", ""},
		{"UTC", "@every 90s", "2026-01-01T00:01:00Z", "2026-01-01T00:01:30Z", ""},
	} {
		zone, l := load(t, c.zone), parse(t, c.line)
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		got := l.Next(after, zone, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if got.Format(time.RFC3339) != c.want {
			t.Errorf("%s %q after %s: got %s, want %s", c.zone, c.line, c.after, got.Format(time.RFC3339), c.want)
		}
		if note := l.Note(got, zone); c.note == "" && note != "" || !strings.Contains(note, c.note) {
			t.Errorf("%s %q at %s: the note is %q, want %q", c.zone, c.line, c.want, note, c.note)
		}
	}
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                         "empty",
		"61 * * * *":               "the minute 61 is not between 0 and 59",
		"* 24 * * *":               "the hour 24 is not between 0 and 23",
		"0 0 31 2 *":               "never fires",
		"0 0 30 2 *":               "never fires",
		"0 0 31 4,6,9,11 *":        "never fires",
		"0 0 0 * *":                "the day of the month 0",
		"* * * 13 *":               "the month 13",
		"* * * * 8":                "the day of the week 8",
		"* * * *":                  "4 fields",
		"* * * * * * *":            "7 fields",
		"a * * * *":                `"a" is no minute`,
		"5-1 * * * *":              "runs backwards",
		"*/0 * * * *":              "step",
		"*/99 * * * *":             "step",
		"1,,2 * * * *":             "is no minute",
		"+5 * * * *":               "is no minute",
		"-5 * * * *":               "is no minute",
		"TZ=UTC * * * * *":         "an option of the schedule",
		"@fortnightly":             "not known",
		"@every 1ms":               "between a second and 100 years",
		"@every -5s":               "between a second",
		"@every soon":              "not a duration",
		"@every 1000000000h":       "not a duration",
		"@every 1s100us":           "whole milliseconds",
		"@at":                      "names no time",
		"@at tomorrow":             "is not a time",
		"@at 0001-01-01T00:00:00Z": "not between 1970 and 9998",
		"@at 9999-12-31T00:00:00Z": "not between 1970 and 9998",
		"@at 2026-02-01T00:00:00Z 2026-01-01T00:00:00Z": "ascending order",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// FuzzParse holds that no line makes Parse or Next panic or hang, and that ticks go forward.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "0 0 29 2 *", "*/5 1-3 L jan mon", "@every 1h", "@at 2026-01-01T00:00:00Z"} {
		f.Add(s, int64(1_800_000_000))
	}
	zone := load(f, "Australia/Lord_Howe")
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		at := time.Unix(unix%250_000_000_000, 0)
		for range 3 {
			next := l.Next(at, zone, time.Unix(0, 0))
			if next.IsZero() {
				return
			}
			if !next.After(at) {
				t.Fatalf("%q: %v comes after %v", text, next, at)
			}
			at = next
		}
	})
}
