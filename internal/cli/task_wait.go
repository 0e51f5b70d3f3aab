package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func (a *app) taskWaitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait until a task has ended and print its result", Args: taskID, ValidArgsFunction: a.completeTasks,
		Long: "Waits until a task has ended, however it ended, and prints its result; with -o json the whole task.\n" +
			"Exit code 0 means that it was completed. The task stays as it is when the wait is interrupted.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.waitTask(cmd.Context(), c, args[0], timeout) })
		},
	}
	cmd.Flags().Var(&span{&timeout, time.Millisecond}, "for", "give up after this time")
	return cmd
}

var errWaitedLongEnough = errors.New("the time given with --for is up")

func (a *app) waitTask(ctx context.Context, c *waggle.Client, id string, timeout time.Duration) error {
	info, err := a.findTask(ctx, c, id)
	if err != nil {
		return err
	}
	waitCtx := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeoutCause(ctx, timeout, errWaitedLongEnough)
		defer cancel()
	}
	info, err = c.Wait(waitCtx, info.ID)
	switch {
	case err != nil && context.Cause(waitCtx) == errWaitedLongEnough:
		return failf("%s has not ended after %s; it stays where it is", id, shortDuration(timeout))
	case err != nil:
		if ctx.Err() != nil {
			a.say("task %s stays where it is", id)
		}
		return err
	}
	if err := a.printObject(info, func() error { return a.printResult(info) }); err != nil {
		return err
	}
	if info.State != driver.Completed {
		return failf("task %s is %s%s", info.ID, info.State, reasonText(info))
	}
	return nil
}

// printResult prints the result of a task, if it has one.
func (a *app) printResult(t *waggle.TaskInfo) error {
	if text := resultText(t); text != "" {
		_, err := fmt.Fprintln(a.out, text)
		return err
	}
	return nil
}

func (a *app) taskLogsCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Print what a task has logged", Args: taskID, ValidArgsFunction: a.completeTasks,
		Long: "Prints the log lines of a task, the oldest first. The store keeps the newest 64 KiB of them.\n" +
			"With --follow it goes on until the task has ended.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.taskLogs(cmd.Context(), c, args[0], follow) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has ended")
	return cmd
}

func (a *app) taskLogs(ctx context.Context, c *waggle.Client, id string, follow bool) error {
	l := a.newList(left("TIME"), left("LEVEL"), left("MESSAGE"))
	t, err := a.findTask(ctx, c, id)
	if err != nil {
		return err
	}
	cursor, err := c.Store().Events(ctx, driver.EventQuery{After: driver.EventsFromNow})
	if err != nil {
		return err
	}
	var shown []waggle.LogLine
	for {
		if t, err = c.Get(ctx, t.ID); err != nil {
			return l.close(err)
		}
		for _, line := range newLines(shown, t.Logs) {
			if err := l.add(line, func() []string { return []string{clock(line.Time), line.Level, line.Message + " " + line.Attrs} }); err != nil {
				return l.close(err)
			}
		}
		shown = t.Logs
		if !follow || t.State.Ended() {
			if l.count == 0 {
				a.say("task %s has logged nothing", t.ID)
			}
			return l.close(nil)
		}
		if err := errors.Join(l.flush(), a.awaitNews(ctx, c, cursor, t.ID)); err != nil {
			return l.close(err)
		}
	}
}

// newLines are the lines of now that were not there before. The store drops the oldest lines of a long log.
func newLines(before, now []waggle.LogLine) []waggle.LogLine {
	for skip := range len(before) + 1 {
		rest := before[skip:]
		if len(rest) <= len(now) && sameLines(rest, now[:len(rest)]) {
			return now[len(rest):]
		}
	}
	return now
}

func sameLines(a, b []waggle.LogLine) bool {
	for i := range a {
		if !a[i].Time.Equal(b[i].Time) || a[i].Message != b[i].Message || a[i].Level != b[i].Level || a[i].Attrs != b[i].Attrs {
			return false
		}
	}
	return true
}

// awaitNews waits until something has happened to a task, and moves the cursor behind it.
func (a *app) awaitNews(ctx context.Context, c *waggle.Client, cursor *driver.EventPage, id string) error {
	for {
		page, err := c.Store().Events(ctx, driver.EventQuery{After: cursor.Next, Wait: 5 * time.Second})
		if err != nil {
			return err
		}
		*cursor = *page
		if page.Gap {
			return nil
		}
		for _, e := range page.Events {
			if e.ID == id {
				return nil
			}
		}
	}
}
