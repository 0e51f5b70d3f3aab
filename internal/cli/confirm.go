package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle/driver"
)

// care holds the flags of commands that ask first.
type care struct{ yes, dryRun bool }

func (c *care) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do it without asking")
	c.dryFlag(cmd)
}

// dryFlag is for a command that does not ask.
func (c *care) dryFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "only say what would be done")
}

// check refuses, before anything is opened, what nobody is there to confirm.
func (c *care) check(a *app) error {
	if c.yes || c.dryRun || a.inTerm.is {
		return nil
	}
	return driver.Invalidf("this may change many tasks, and there is no terminal to ask: repeat it with --yes, or look first with --dry-run")
}

// confirm asks, unless --yes was given. It returns nil for a yes.
func (c *care) confirm(ctx context.Context, a *app, question string) error {
	if c.yes {
		return nil
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n') // no answer is a no
		answer <- line
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return failf("nothing was changed")
	}
}
