package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
)

func (a *app) workerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "worker", Short: "List workers, stop them or keep them quiet", GroupID: "watch",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the workers that are registered", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				info, err := c.Info(cmd.Context())
				if err != nil {
					return err
				}
				workers, err := c.Workers(cmd.Context())
				if err != nil {
					return err
				}
				shut, err := shutTypes(cmd.Context(), c, info.Now)
				if err != nil {
					return err
				}
				l := a.newList(left("WORKER"), left("HOST"), right("PID"), right("BUSY"), right("UP"), right("LEASE"), left("STATE"), left("QUEUES"), left("TYPES"))
				for _, w := range workers {
					row := workerRowOf(w, info.Now)
					row.stop(shut)
					if err := l.add(row, func() []string {
						return []string{w.ID, w.Host, fmt.Sprint(w.PID), row.busyText(), roughly(info.Now.Sub(w.Since)),
							leaseText(w, info), row.State, strings.Join(w.Queues, ","), row.typesText()}
					}); err != nil {
						return l.close(err)
					}
				}
				if len(workers) == 0 {
					a.say("no workers")
				}
				return l.close(nil)
			})
		},
	})
	cmd.AddCommand(a.workerDirectCommands()...)
	return cmd
}

// workerRow is one worker in `worker list -o json`.
type workerRow struct {
	waggle.WorkerStatus
	Busy int `json:"busy"` // slots with a task; what it holds beyond them waits in the worker
	// State is alive; quiet or stopping: it was told so; lost: its lease is over and nobody has taken its tasks over yet;
	// damaged: what is stored of it can't be relied on.
	State string `json:"state"`
	// StoppedTypes are those it serves whose breakers let nothing start.
	StoppedTypes []string `json:"stopped_types,omitzero"`
}

// stop notes which of the worker's types are stopped.
func (w *workerRow) stop(shut map[string]string) {
	for typ := range shut {
		if len(w.Types) == 0 || slices.Contains(w.Types, typ) {
			w.StoppedTypes = append(w.StoppedTypes, typ)
		}
	}
	slices.Sort(w.StoppedTypes)
}

func (w *workerRow) typesText() string {
	text := typesText(w.Types)
	if len(w.StoppedTypes) > 0 {
		text += " (stopped: " + strings.Join(w.StoppedTypes, ",") + ")"
	}
	return text
}

func workerRowOf(w waggle.WorkerStatus, now time.Time) workerRow {
	row := workerRow{WorkerStatus: w, Busy: min(w.Held, w.Slots), State: "alive"}
	switch {
	case w.Damaged:
		row.State = "damaged"
	case !w.LeaseEnd.After(now):
		row.State = "lost"
	case w.Directive == waggle.DirectStop:
		row.State = "stopping"
	case w.Directive != waggle.DirectServe:
		row.State = string(w.Directive)
	}
	return row
}

// busyText tells the slots in use, and what waits in the worker behind them.
func (w *workerRow) busyText() string {
	if waits := w.Held - w.Busy; waits > 0 {
		return fmt.Sprintf("%d/%d +%d", w.Busy, w.Slots, waits)
	}
	return fmt.Sprintf("%d/%d", w.Busy, w.Slots)
}

func leaseText(w waggle.WorkerStatus, info *waggle.StoreInfo) string {
	if left := w.LeaseEnd.Sub(info.Now); left > 0 {
		return roughly(left)
	}
	return "over"
}

func typesText(types []string) string {
	if len(types) == 0 {
		return "all"
	}
	return strings.Join(types, ",")
}
