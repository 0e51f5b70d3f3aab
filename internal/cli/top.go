package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	topWidth  = 80 // of a terminal that does not tell its size
	topHeight = 24
	topTasks  = 1000 // tasks that are looked at
)

func (a *app) topCommand() *cobra.Command {
	every := time.Second
	cmd := &cobra.Command{
		Use: "top", Short: "Watch queues, workers and running tasks", GroupID: "watch", Args: noArgs,
		Long: "Shows queues, workers and running tasks until you press q. Tab and the arrow keys move, Enter\n" +
			"opens a queue or a task, / filters, p pauses or resumes a queue, r retries a task and c cancels one; ? lists\n" +
			"all keys. If standard output is not a terminal it prints one frame; with -o json, the data in it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.top(cmd.Context(), c, every) })
		},
	}
	cmd.Flags().Var(&span{&every, 100 * time.Millisecond}, "interval", "how often to look")
	return cmd
}

// snapshot is what top shows.
type snapshot struct {
	Store   string             `json:"store"`
	Now     time.Time          `json:"now"`
	Bytes   int64              `json:"bytes"`
	Warn    []string           `json:"warnings"`
	Queues  []queueRow         `json:"queues"`
	Workers []workerRow        `json:"workers"`
	Active  []*waggle.TaskInfo `json:"active"`

	totals driver.Totals
	queue  []*waggle.TaskInfo // the newest tasks of the queue that is open
	open   *taskDetail        // the task that is open
}

// place is what a user has opened: a queue, a task, or neither.
type place struct{ queue, task string }

func (a *app) look(ctx context.Context, c *waggle.Client, at place) (*snapshot, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	s := &snapshot{Store: a.storeURL(), Now: info.Now, Bytes: info.Bytes, Warn: info.Warnings, Queues: []queueRow{},
		Workers: []workerRow{}, Active: []*waggle.TaskInfo{}}
	queues, err := c.Queues(ctx)
	if err != nil {
		return nil, err
	}
	workers, err := c.Workers(ctx)
	if err != nil {
		return nil, err
	}
	crew := newCrew(workers, info.Now)
	if crew.shut, err = shutTypes(ctx, c, info.Now); err != nil {
		return nil, err
	}
	for _, w := range workers {
		s.Workers = append(s.Workers, workerRowOf(w, info.Now))
	}
	for i := range queues {
		s.Queues = append(s.Queues, rowOf(&queues[i], crew, info.Now))
		t := &queues[i].Totals
		s.totals.Enqueued += t.Enqueued
		s.totals.Completed += t.Completed
		s.totals.Failed += t.Failed
	}
	if s.Active, err = tasksOf(ctx, c, driver.Filter{States: []driver.State{driver.Active}}); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.Active, func(x, y *waggle.TaskInfo) int { return x.ClaimedAt.Compare(y.ClaimedAt) })
	return s, a.lookInside(ctx, c, s, at)
}

// lookInside adds what belongs to the place that is open.
func (a *app) lookInside(ctx context.Context, c *waggle.Client, s *snapshot, at place) (err error) {
	if at.queue != "" {
		if s.queue, err = tasksOf(ctx, c, driver.Filter{Queues: []string{at.queue}}); err != nil {
			return err
		}
	}
	if at.task == "" {
		return nil
	}
	t, err := c.Get(ctx, at.task)
	if errors.Is(err, driver.ErrNotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	s.open = &taskDetail{TaskInfo: t}
	if t.State == driver.Available {
		s.open.Obstacle, err = a.obstacleOf(ctx, c, t)
	}
	return err
}

func tasksOf(ctx context.Context, c *waggle.Client, f driver.Filter) ([]*waggle.TaskInfo, error) {
	page, err := c.List(ctx, f, driver.Page{Size: topTasks})
	if err != nil {
		return nil, err
	}
	return page.Tasks, nil
}

func (a *app) top(ctx context.Context, c *waggle.Client, every time.Duration) error {
	first, err := a.look(ctx, c, place{})
	if err != nil {
		return err
	}
	if a.format != formatTable || !a.outTerm.is || !a.inTerm.is {
		return a.printObject(first, func() error {
			v := topView{s: first, height: topHeight + len(first.Queues) + len(first.Workers) + len(first.Active)}
			_, err := fmt.Fprintln(a.out, strings.TrimRight(v.overview(), "\n"))
			return err
		})
	}
	m := newTopModel(ctx, a, c, first, every)
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(a.out), tea.WithoutSignalHandler(),
		tea.WithEnvironment(os.Environ())).Run()
	switch {
	case m.interrupted:
		return errInterruptedByKey
	case errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// errInterruptedByKey is Ctrl-C in a terminal whose keys the program reads itself.
var errInterruptedByKey = &codedError{code: exitInterrupted}
