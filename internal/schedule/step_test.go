package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sim plays the store for one schedule.
type sim struct {
	t    *testing.T
	plan driver.Plan
	now  time.Time
	no   int64
}

func newSim(t *testing.T, s Spec) *sim {
	t.Helper()
	s = s.WithDefaults()
	if s.Type == "" {
		s.Type = "t"
	}
	if err := s.Check("s", start); err != nil {
		t.Fatal(err)
	}
	b := Body{Spec: s, Anchor: start, Last: start}
	next, err := s.Next(start, start, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &sim{t: t, now: start, plan: driver.Plan{PlanRef: Ref("s"), Version: 1, Wake: next[0].At, Body: b.Encode()}}
}

// at moves the clock and does a step; it returns the ticks that fire, by their minute and second.
func (s *sim) at(d time.Duration) string {
	s.t.Helper()
	s.now = start.Add(d)
	step, _, ok, err := Step(&s.plan, s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	if !ok {
		return ""
	}
	s.plan.Wake, s.plan.Body, s.plan.News, s.plan.Waiting = step.Wake, step.Body, nil, 0
	var fired []string
	for _, task := range step.Tasks {
		tick, err := time.Parse(time.RFC3339Nano, task.Headers[HeaderTick])
		if err != nil {
			s.t.Fatal(err)
		}
		fired = append(fired, tick.UTC().Format("04:05"))
	}
	return strings.Join(fired, " ")
}

func (s *sim) body() *Body {
	b, err := Decode(s.plan.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *sim) news(n driver.News) {
	s.no++
	n.No, n.Time = s.no, s.now
	s.plan.News = append(s.plan.News, n)
	s.plan.Waiting++
}

func (s *sim) end(state driver.State) {
	s.news(driver.News{Task: s.body().LastRun.Task, State: state})
}

func (s *sim) want(got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("at %v: fired %q, want %q", s.now.Sub(start), got, want)
	}
}

func TestEachTickFiresOnce(t *testing.T) {
	t.Parallel()
	s := newSim(t, Spec{Line: "* * * * *"})
	s.want(s.at(59*time.Second), "")
	s.want(s.at(60*time.Second), "01:00")
	s.want(s.at(61*time.Second), "")
	s.want(s.at(2*time.Minute), "02:00")
	if b := s.body(); b.Fired != 2 || b.Left != 0 {
		t.Errorf("fired %d, left out %d", b.Fired, b.Left)
	}
}

func TestMissedTicks(t *testing.T) {
	t.Parallel()
	for missed, want := range map[string]string{MissedSkip: "05:00", MissedOnce: "05:00", MissedCatchUp: "03:00 04:00 05:00"} {
		s := newSim(t, Spec{Line: "* * * * *", Missed: missed, CatchUp: 3})
		s.want(s.at(5*time.Minute+10*time.Second), want)
		s.want(s.at(6*time.Minute), "06:00")
		if b := s.body(); b.Skipped == nil || b.Left == 0 {
			t.Errorf("%s: nothing tells of what was left out: %+v", missed, b)
		}
	}
	for missed, want := range map[string]string{MissedSkip: "", MissedOnce: "00:00", MissedCatchUp: "00:00"} {
		s := newSim(t, Spec{Line: "0 * * * *", Missed: missed})
		s.want(s.at(90*time.Minute), want)
	}
	s := newSim(t, Spec{Line: "@every 1s", CatchUp: 2}) // years of it must not take long
	if got := s.at(20 * 365 * 24 * time.Hour); strings.Count(got, ":") != 2 {
		t.Errorf("after 20 years %q fired", got)
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	s := newSim(t, Spec{Line: "* * * * *", Overlap: OverlapSkip})
	s.want(s.at(time.Minute), "01:00")
	s.want(s.at(2*time.Minute), "")
	if b := s.body(); b.Skipped == nil || !strings.Contains(b.Skipped.Why, b.LastRun.Task) {
		t.Errorf("why it was left out is %+v", b.Skipped)
	}
	s.end(driver.Completed)
	s.want(s.at(2*time.Minute+time.Second), "")
	s.want(s.at(3*time.Minute), "03:00")

	s = newSim(t, Spec{Line: "* * * * *", Overlap: OverlapWait})
	s.want(s.at(time.Minute), "01:00")
	s.want(s.at(3*time.Minute), "")
	s.end(driver.Completed)
	s.want(s.at(3*time.Minute+time.Second), "02:00")
	s.end(driver.Discarded)
	s.want(s.at(3*time.Minute+2*time.Second), "03:00")
	if b := s.body(); len(b.Waiting) != 0 || b.LastRun.State != "" {
		t.Errorf("%+v", b)
	}

	s = newSim(t, Spec{Line: "* * * * *", Overlap: OverlapReplace})
	s.want(s.at(time.Minute), "01:00")
	first := s.body().LastRun.Task
	s.now = start.Add(2 * time.Minute)
	step, changes, ok, err := Step(&s.plan, s.now)
	if err != nil || !ok || len(step.Tasks) != 1 || fmt.Sprint(changes) != fmt.Sprint([]driver.Change{{Op: driver.OpCancel, IDs: []string{first}}}) {
		t.Errorf("replacing gave %v, %v, %v", step.Tasks, changes, err)
	}
}

func TestRunNowAndPaused(t *testing.T) {
	t.Parallel()
	s := newSim(t, Spec{Line: "0 0 1 1 *"})
	s.news(driver.News{Signal: SignalRun, SignalID: "x"})
	s.want(s.at(time.Second), "00:01")
	if b := s.body(); !b.LastRun.Manual || b.Fired != 1 {
		t.Errorf("%+v", b.LastRun)
	}
	s.end(driver.Discarded)
	s.at(2 * time.Second)
	if b := s.body(); b.LastRun.State != driver.Discarded || b.LastRun.Ended.IsZero() {
		t.Errorf("the outcome of the last run is %+v", b.LastRun)
	}
	b := s.body()
	b.Paused = true
	s.plan.Body, s.plan.Wake = b.Encode(), start
	s.want(s.at(400*24*time.Hour), "")
}

func TestFixedTimesEnd(t *testing.T) {
	t.Parallel()
	s := newSim(t, Spec{Line: "@at 2026-03-01T12:01:00Z 2026-03-01T12:02:00Z"})
	s.want(s.at(time.Minute), "01:00")
	s.want(s.at(2*time.Minute), "02:00")
	if !s.plan.Wake.IsZero() {
		t.Errorf("it wakes at %v after its last time", s.plan.Wake)
	}
}

func TestJitterIsTheSameForATick(t *testing.T) {
	t.Parallel()
	s := Spec{Line: "* * * * *", Type: "t", Jitter: 10 * time.Second}
	seen := map[time.Duration]bool{}
	for i := range 100 {
		tick := start.Add(time.Duration(i) * time.Minute)
		a, b := s.task("s", stepOf(tick), tick, tick), s.task("s", stepOf(tick), tick, tick.Add(time.Hour))
		if d := a.At.Sub(tick); d < 0 || d > s.Jitter || !a.At.Equal(b.At) || a.ID != b.ID {
			t.Fatalf("tick %v starts at %v and %v", tick, a.At, b.At)
		}
		seen[a.At.Sub(tick)] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 ticks have %d delays", len(seen))
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for want, edit := range map[string]func(*Spec){
		"minute 61":           func(s *Spec) { s.Line = "61 * * * *" },
		"never fires":         func(s *Spec) { s.Line = "0 0 31 2 *" },
		"would never fire":    func(s *Spec) { s.Line = "@at 2020-01-01T00:00:00Z" },
		"no time zone":        func(s *Spec) { s.Zone = "Mars/Olympus" },
		"time zone \"Local\"": func(s *Spec) { s.Zone = "Local" },
		"missed ticks":        func(s *Spec) { s.Missed = "perhaps" },
		"overlap policy":      func(s *Spec) { s.Overlap = "perhaps" },
		"jitter":              func(s *Spec) { s.Jitter = -1 },
		"not valid JSON":      func(s *Spec) { s.Payload = []byte("{") },
		"task type is empty":  func(s *Spec) { s.Type = "" },
		"the queue":           func(s *Spec) { s.Queue = "a b" },
	} {
		s := Spec{Line: "@daily", Type: "t"}.WithDefaults()
		edit(&s)
		if err := s.Check("s", start); err == nil || !strings.Contains(err.Error(), want) || driver.ClassOf(err).Exit != 2 {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
