package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// story prints what happens, with the time since it began.
type story struct {
	w     io.Writer
	term  terminal
	start time.Time
}

func newStory(w io.Writer, term terminal) *story { return &story{w: w, term: term, start: time.Now()} }

// begin sets the clock to zero.
func (s *story) begin() { s.start = time.Now() }

func (s *story) paint(c colour, text string) string { return s.term.paint(c, text) }

func (s *story) line(format string, args ...any) { fmt.Fprintf(s.w, format+"\n", args...) }

// event prints who did what.
func (s *story) event(who, format string, args ...any) {
	s.line("%6.2fs  %s  %s", time.Since(s.start).Seconds(), s.paint(cyan, fmt.Sprintf("%-9s", who)), fmt.Sprintf(format, args...))
}

// conclude compares the store's records with what was promised, and ends the story with the figures.
func (d *demo) conclude(ctx context.Context) error {
	f := demoFigures{Tasks: len(d.ids), RecoveryMS: d.recovery.Milliseconds()}
	if d.cluster != nil {
		if err := d.cluster.WaitOK(ctx); err != nil {
			return failf("the cluster did not recover: %w", err)
		}
		f.MastersKilled = 1
	}
	var broken []string
	for _, id := range d.ids {
		info, err := d.taskOf(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case info == nil:
			f.Lost++
		case info.State == driver.Completed:
			f.Completed++
			if info.Crashes > 0 {
				f.Recovered++
			}
		}
		if problem := d.judge(id, info); problem != "" {
			broken = append(broken, fmt.Sprintf("task %s %s", d.title(id), problem))
		}
	}
	if err := d.printFigures(f); err != nil {
		return err
	}
	if len(broken) > 0 {
		return failf("%d tasks did not go as promised: %s", len(broken), broken[0])
	}
	return nil
}

func (d *demo) printFigures(f demoFigures) error {
	return d.printObject(f, func() error {
		d.story.line("")
		verdict := d.story.paint(green, "nothing lost")
		if f.Lost > 0 {
			verdict = d.story.paint(red, fmt.Sprintf("%d lost", f.Lost))
		}
		_, err := fmt.Fprintf(d.out, "%s, %s completed, %s, %d taken over, %.2f seconds after the kill\n",
			plural(f.Tasks, "task"), grouped(int64(f.Completed)), verdict, f.Recovered, float64(f.RecoveryMS)/1000)
		return err
	})
}

// judge returns what is wrong with the end of a task, or "". Promised is one accepted outcome, and for the one whose
// worker was killed also one crash counted and no attempt spent.
func (d *demo) judge(id string, t *waggle.TaskInfo) string {
	if t == nil {
		return "is not in the store any more"
	}
	crashes, completions, others := 0, 0, 0
	crashed, twice := map[string]bool{}, false
	for _, a := range t.Attempts {
		switch a.Outcome {
		case driver.Crash:
			crashes++
			twice = twice || crashed[a.Worker]
			crashed[a.Worker] = true
		case driver.Complete:
			completions++
		default:
			others++
		}
	}
	wanted := 0
	if id == d.victim {
		wanted = 1
	}
	switch {
	case t.State != driver.Completed:
		return "is " + string(t.State)
	case completions != 1 || others != 0:
		return fmt.Sprintf("was ended %d times", completions+others)
	case t.Crashes != crashes || crashes < wanted || twice:
		// A worker that can't renew its lease, because a master is missing or the machine is busy, loses its task to another one
		// too; but no worker does so twice.
		return fmt.Sprintf("counts %s, not %d", plural(t.Crashes, "crash"), wanted)
	case t.Attempt != 1:
		return fmt.Sprintf("took attempt %d: the crash cost one", t.Attempt)
	case id == d.victim && t.Attempts[len(t.Attempts)-1].Worker == t.Attempts[0].Worker:
		return "was completed by the worker that was killed"
	}
	return ""
}
