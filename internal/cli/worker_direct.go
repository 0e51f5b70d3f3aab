package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const workerIDs = "A worker is named by its id, by the beginning of its id, or by its name (what stands before the colon), which\n" +
	"means all workers of that name."

func (a *app) workerDirectCommands() []*cobra.Command {
	return []*cobra.Command{
		a.workerDirectCommand("quiet", "Have workers take no new tasks", waggle.DirectQuiet,
			"Running tasks go on, and the worker stays; `waggle worker resume` lets it take tasks again. It learns of this\n"+
				"at once, or within its lease at the latest.\n\n"+workerIDs),
		a.workerDirectCommand("resume", "Have quiet workers take tasks again", waggle.DirectServe, workerIDs),
		a.workerDirectCommand("stop", "Stop workers gracefully", waggle.DirectStop,
			"The worker does what it does on SIGTERM: it takes no new tasks, finishes what runs within its drain time, and exits\n"+
				"with code 0. It learns of this at once, or within its lease at the latest. This can't be undone.\n\n"+workerIDs),
	}
}

// toldRow is one worker in the output of `worker stop` and its siblings.
type toldRow struct {
	ID    string `json:"id"`
	State string `json:"state"` // as in `worker list`
}

func (a *app) workerDirectCommand(verb, short string, d waggle.Directive, long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " WORKER...", Short: short, Long: long, Args: workerArgs, ValidArgsFunction: a.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.directWorkers(cmd.Context(), c, args, d) })
		},
	}
}

func (a *app) directWorkers(ctx context.Context, c *waggle.Client, names []string, d waggle.Directive) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	workers, err := c.Workers(ctx)
	if err != nil {
		return err
	}
	var chosen []waggle.WorkerStatus
	for _, name := range names {
		some, err := workersNamed(workers, name)
		if err != nil {
			return err // before any is told
		}
		chosen = append(chosen, some...)
	}
	slices.SortFunc(chosen, func(a, b waggle.WorkerStatus) int { return strings.Compare(a.ID, b.ID) })
	chosen = slices.CompactFunc(chosen, func(a, b waggle.WorkerStatus) bool { return a.ID == b.ID })
	l := a.newList(left("WORKER"), left("STATE"))
	for _, w := range chosen {
		if err := c.DirectWorker(ctx, w.ID, d); err != nil {
			return l.close(err)
		}
		w.Directive = d
		row := toldRow{w.ID, workerRowOf(w, info.Now).State}
		if err := l.add(row, func() []string { return []string{row.ID, row.State} }); err != nil {
			return l.close(err)
		}
	}
	return l.close(nil)
}

// workersNamed returns the worker with that id, else those of that name, else the only one whose id begins so.
func workersNamed(workers []waggle.WorkerStatus, name string) ([]waggle.WorkerStatus, error) {
	var named, begun []waggle.WorkerStatus
	for _, w := range workers {
		switch {
		case w.ID == name:
			return []waggle.WorkerStatus{w}, nil
		case name != "" && strings.HasPrefix(w.ID, name+":"):
			named = append(named, w)
		case name != "" && strings.HasPrefix(w.ID, name):
			begun = append(begun, w)
		}
	}
	switch {
	case len(named) > 0:
		return named, nil
	case len(begun) == 1:
		return begun, nil
	case len(begun) > 1:
		return nil, driver.Invalidf("the ids of %d workers begin with %q, among them %s and %s: write more of it",
			len(begun), name, begun[0].ID, begun[1].ID)
	}
	return nil, driver.NoWorker(name)
}

// completeWorkers completes ids of workers.
func (a *app) completeWorkers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	err := errors.Join(a.prepare(cmd), a.withClient(cmd.Context(), func(c *waggle.Client) error {
		workers, err := c.Workers(cmd.Context())
		for _, w := range workers {
			ids = append(ids, w.ID)
		}
		return err
	}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// workerArgs wants at least one worker.
func workerArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return driver.Invalidf("`%s` takes at least one worker: see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}
