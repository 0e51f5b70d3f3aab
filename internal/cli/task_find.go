package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	shortestPrefix = 4       // characters of an id that stand for the whole of it
	prefixLook     = 200_000 // tasks, the newest first, among which a shortened id is looked for
	completeLook   = 200     // tasks that a shell is offered
)

// findTask returns the task with an id, or the only one whose id begins so.
func (a *app) findTask(ctx context.Context, c *waggle.Client, id string) (*waggle.TaskInfo, error) {
	t, err := c.Get(ctx, id)
	if err == nil || !errors.Is(err, driver.ErrNotFound) || len(id) < shortestPrefix {
		return t, err
	}
	var found *waggle.TaskInfo
	seen := 0
	for t, listErr := range c.All(ctx, waggle.Filter{}) {
		if listErr != nil {
			return nil, listErr
		}
		if seen++; seen > prefixLook {
			break
		}
		if !strings.HasPrefix(t.ID, id) {
			continue
		}
		if found != nil {
			return nil, driver.Invalidf("the ids of several tasks begin with %q, among them %s and %s: write more of it", id, t.ID, found.ID)
		}
		found = t
	}
	if found == nil {
		return nil, err
	}
	return found, nil
}

// fullIDs returns the ids of the tasks that are named by an id or by the beginning of one. What is not found stays as it
// was written, so that whoever uses it tells so.
func (a *app) fullIDs(ctx context.Context, c *waggle.Client, ids []string) ([]string, error) {
	records, err := c.Store().Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	full := make([]string, len(ids))
	for i, id := range ids {
		full[i] = id
		if records[i] != nil || len(id) < shortestPrefix {
			continue
		}
		t, err := a.findTask(ctx, c, id)
		switch {
		case err == nil:
			full[i] = t.ID
		case !errors.Is(err, driver.ErrNotFound):
			return nil, err
		}
	}
	return full, nil
}

// completeTasks completes ids of the newest tasks, each with its type and state.
func (a *app) completeTasks(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	var list []string
	err := errors.Join(a.prepare(cmd), a.withClient(cmd.Context(), func(c *waggle.Client) error {
		page, err := c.List(cmd.Context(), waggle.Filter{}, waggle.Page{Size: completeLook})
		if err != nil {
			return err
		}
		for _, t := range page.Tasks {
			if strings.HasPrefix(t.ID, begun) {
				list = append(list, t.ID+"\t"+t.Type+", "+string(t.State))
			}
		}
		return nil
	}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeTypes completes the types of tasks that have not ended.
func (a *app) completeTypes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	seen := map[string]bool{}
	var list []string
	err := errors.Join(a.prepare(cmd), a.withClient(cmd.Context(), func(c *waggle.Client) error {
		queues, err := c.Queues(cmd.Context())
		for _, q := range queues {
			for _, t := range q.Types {
				if !seen[t.Type] {
					seen[t.Type] = true
					list = append(list, t.Type)
				}
			}
		}
		return err
	}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
