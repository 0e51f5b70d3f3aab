package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
)

func (a *app) workerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "worker", Short: "Look at workers", GroupID: "watch",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the workers that are registered", Args: noArgs,
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
				l := a.newList(left("WORKER"), left("HOST"), right("PID"), right("BUSY"), right("UP"), right("LEASE"), left("QUEUES"), left("TYPES"))
				for _, w := range workers {
					if err := l.add(w, func() []string {
						return []string{w.ID, w.Host, fmt.Sprint(w.PID), fmt.Sprintf("%d/%d", w.Held, w.Slots), roughly(info.Now.Sub(w.Since)),
							leaseText(w, info), strings.Join(w.Queues, ","), typesText(w.Types)}
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
	return cmd
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
