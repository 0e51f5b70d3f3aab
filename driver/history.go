package driver

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// AppendAttempt adds an attempt to a history, and cuts its texts to [MaxErrorBytes]. Snoozes that follow one another are
// one entry with a count. Of more than [MaxHistory] entries, the oldest that tells of no failure goes first; where all
// tell of one, the first 50 and the newest 50 are kept.
func AppendAttempt(history []Attempt, a Attempt) []Attempt {
	a.Error, a.Stack = CutText(a.Error, MaxErrorBytes), CutText(a.Stack, MaxErrorBytes)
	if n := len(history); n > 0 && a.continues(&history[n-1]) {
		last := history[n-1]
		a.Started, a.Count = last.Started, max(last.Count, 1)+max(a.Count, 1)
		history[n-1] = a
		return history
	}
	for len(history) >= MaxHistory {
		drop := slices.IndexFunc(history, func(a Attempt) bool { return !a.failed() })
		if drop < 0 {
			drop = MaxHistory / 2
		}
		history = slices.Delete(history, drop, drop+1)
	}
	return append(history, a)
}

func (a *Attempt) continues(last *Attempt) bool {
	return a.Outcome == Snooze && last.Outcome == Snooze && a.Number == last.Number && a.Error == "" && last.Error == ""
}

func (a *Attempt) failed() bool {
	return a.Error != "" || a.Outcome == Retry || a.Outcome == Discard || a.Outcome == Crash
}

// Attempt returns the attempt that a settlement ends as the history tells it, without number, worker and times. spent is
// whether a failure leaves the task no attempt, cancelled whether its cancellation was asked for. ok is false for one that
// the history leaves out.
func (s *Settlement) Attempt(spent, cancelled bool) (a Attempt, ok bool) {
	a = Attempt{Outcome: s.Outcome, Error: s.Error, Stack: s.Stack}
	switch {
	case s.Outcome == Discard:
		a.Reason = ReasonHandler
	case s.Outcome == Retry && spent && !cancelled:
		a.Outcome, a.Reason = Discard, ReasonAttempts
	}
	return a, s.Outcome != Release || !s.Unbegun
}

// Spends reports whether a failure of this attempt leaves none, to a task that may fail own times.
func (s *Settlement) Spends(attempt, own int) bool { return attempt >= cmp.Or(s.MaxAttempts, own) }

// CrashReason is the Reason of an attempt whose worker died: [ReasonCrashes] if that discarded the task.
func CrashReason(crashes, limit int, cancelled bool) Reason {
	if crashes < limit || cancelled {
		return ""
	}
	return ReasonCrashes
}

// AppendLogs adds lines to a task's log and drops the oldest until it fits [MaxLogBytes]; a line that alone does not
// fit is cut.
func AppendLogs(logs, add []LogLine) []LogLine {
	for _, l := range add {
		l.Message = CutText(l.Message, MaxErrorBytes)
		if len(l.Attrs) > MaxErrorBytes {
			l.Attrs = ""
		}
		logs = append(logs, l)
	}
	size, keep := 0, len(logs)
	for keep > 0 && size+logBytes(&logs[keep-1]) <= MaxLogBytes {
		size += logBytes(&logs[keep-1])
		keep--
	}
	return slices.Delete(logs, 0, keep)
}

func logBytes(l *LogLine) int { return 32 + len(l.Message) + len(l.Attrs) }

// brief is what an error shows of a word that nobody knows, which may be of any length.
func brief[S ~string](word S) string { return CutText(string(word), 64) }

// CutText returns s as valid UTF-8 without NUL, of at most n bytes, with a mark where it was cut.
func CutText(s string, n int) string {
	const mark = " …[cut]"
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	if len(s) <= n {
		return s
	}
	end := n - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
