package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

// describeTask prints a task for people.
func (a *app) describeTask(d *taskDetail) error {
	_, err := fmt.Fprint(a.out, taskText(d, a.outTerm))
	return err
}

// taskText is all that is known of a task, for people.
func taskText(d *taskDetail, term terminal) string {
	t := d.TaskInfo
	b := fieldWriter{term: term}
	field := b.field
	field("id", t.ID)
	field("type", t.Type)
	field("queue", t.Queue)
	field("state", term.paint(stateColour(string(t.State)), string(t.State))+reasonText(t))
	if d.Obstacle != nil {
		field("waits", visible(d.Obstacle.Text))
	}
	field("DAMAGED", damageText(t.Damaged))
	field("priority", fmt.Sprint(t.Priority))
	field("attempt", fmt.Sprintf("%d of %d", t.Attempt, t.MaxAttempts))
	if t.Crashes > 0 {
		field("crashes", fmt.Sprint(t.Crashes))
	}
	field("worker", t.Worker)
	field("added", clock(t.EnqueuedAt))
	field("due", clock(t.DueAt))
	field("claimed", clock(t.ClaimedAt))
	field("ended", clock(t.EndedAt))
	field("expires", clock(t.ExpiresAt))
	field("key", keyText(t))
	field("tags", strings.Join(t.Tags, ", "))
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		field("header", visible(name+"="+t.Headers[name]))
	}
	if p := t.Progress; p != nil {
		field("progress", progressText(p))
	}
	field("payload", dataText(t.Payload))
	field("result", resultText(t))
	describeAttempts(&b.Builder, term, t)
	return b.String()
}

// damageText tells which parts of a task can't be trusted.
func damageText(parts []driver.Part) string {
	if len(parts) == 0 {
		return ""
	}
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = string(p)
	}
	return "what is stored of its " + strings.Join(words, ", ") + " does not match its checksum: below is what can be read"
}

func reasonText(t *waggle.TaskInfo) string {
	text := ""
	if t.Reason != "" {
		text = " (" + string(t.Reason) + ")"
	}
	if t.CancelRequested {
		text += " (asked to stop)"
	}
	return text
}

func progressText(p *waggle.Progress) string {
	text := fmt.Sprintf("%g", p.Done)
	if p.Total > 0 {
		text = fmt.Sprintf("%g of %g (%.0f %%)", p.Done, p.Total, 100*p.Done/p.Total)
	}
	if p.Note != "" {
		text += " " + visible(p.Note)
	}
	return text
}

func describeAttempts(b *strings.Builder, term terminal, t *waggle.TaskInfo) {
	if len(t.Attempts) > 0 {
		fmt.Fprintf(b, "\n%s\n", term.paint(bold, "attempts"))
	}
	for _, at := range t.Attempts {
		outcome := outcomeText(at)
		if at.Count > 1 {
			outcome += fmt.Sprint(" ×", at.Count)
		}
		fmt.Fprintf(b, "  %d  %s  %s  %s on %s\n", at.Number, clock(at.Started), outcome, roughly(at.Ended.Sub(at.Started)), visible(at.Worker))
		for line := range strings.Lines(at.Error) {
			fmt.Fprintf(b, "     %s\n", term.paint(red, visible(strings.TrimRight(line, "\n"))))
		}
		for line := range strings.Lines(at.Stack) {
			line = strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    ")
			fmt.Fprintf(b, "     %s\n", term.paint(dim, visible(line)))
		}
	}
	if len(t.Logs) > 0 {
		fmt.Fprintf(b, "\n%s\n", term.paint(bold, "log"))
	}
	for _, l := range t.Logs {
		fmt.Fprintf(b, "  %s  %-5s %s %s\n", clock(l.Time), l.Level, visible(l.Message), visible(l.Attrs))
	}
}

// outcomeText is how an attempt ended, and why if that discarded the task.
func outcomeText(at waggle.Attempt) string {
	if at.Reason == "" {
		return string(at.Outcome)
	}
	return fmt.Sprintf("%s (%s)", at.Outcome, at.Reason)
}

// dataText is a payload or result as its JSON form, on one line.
func dataText(d any) string {
	text, err := plainjson.Marshal(d)
	if err != nil || string(text) == "null" {
		return ""
	}
	return visible(string(text))
}

// resultText is a result for people: the text of a JSON string, other JSON as it is.
func resultText(t *waggle.TaskInfo) string {
	text := dataText(t.Result)
	var s string
	if json.Unmarshal([]byte(text), &s) == nil {
		return visible(s)
	}
	return text
}
