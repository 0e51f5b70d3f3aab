package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/workflow"
)

func (a *app) workflowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "workflow", Short: "Start, inspect and control workflows", GroupID: "use",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.workflowStartCommand(), a.workflowListCommand(), a.workflowGetCommand(), a.workflowShowCommand(), a.workflowCancelCommand(),
		a.workflowRetryCommand(), a.workflowSignalCommand(), a.workflowWaitCommand())
	return cmd
}

// maxWorkflowFile bounds what is read of a file or of standard input.
const maxWorkflowFile = 16 << 20

func (a *app) workflowStartCommand() *cobra.Command {
	id, wait := "", false
	cmd := &cobra.Command{
		Use: "start FILE", Short: "Start the workflow that a file describes", Args: oneArg("file"),
		Long: "Starts the workflow that FILE describes in JSON or YAML; - is standard input. A workflow has an id and steps:\n\n" +
			"  {\"id\": \"order-17\", \"steps\": [\n" +
			"    {\"name\": \"charge\", \"type\": \"card.charge\", \"payload\": {\"cents\": 350}},\n" +
			"    {\"name\": \"brew\", \"type\": \"coffee.brew\", \"after\": [\"charge\"]}]}\n\n" +
			"A step may also have queue, priority, max_attempts, timeout, delay, key, headers, tags, input (the step whose\n" +
			"result is its payload), on_failure (fail, continue or compensate), compensate (a task that undoes it), or wait\n" +
			"({\"signal\", \"for\", \"until\", \"fail\"}) instead of a type. A workflow may have deadline, on_failure, success,\n" +
			"failure and always. Starting an id that exists starts nothing.",
		Example: "  waggle workflow start order.json\n  waggle workflow start order.yaml --id order-18 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.readWorkflow(args[0], id)
			if err != nil {
				return err
			}
			return a.withClientOf(cmd.Context(), a.openOrMake, func(c *waggle.Client) error { return a.startWorkflow(cmd.Context(), c, w, wait) })
		},
	}
	cmd.Flags().Var(&name{&id, "workflow id"}, "id", "the workflow's id, instead of the file's")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it has ended")
	return cmd
}

// readWorkflow reads a workflow from a file.
func (a *app) readWorkflow(file, id string) (*waggle.Workflow, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, driver.Invalidf("%w", err)
		}
		defer f.Close()
		in = f
	}
	name := file
	if file == "-" {
		name = "standard input"
	}
	data, err := io.ReadAll(io.LimitReader(in, maxWorkflowFile+1))
	switch {
	case err != nil:
		return nil, driver.Invalidf("%s can't be read: %w", name, err)
	case len(data) > maxWorkflowFile:
		return nil, driver.Invalidf("%s is larger than %s", name, size(maxWorkflowFile))
	}
	if !json.Valid(data) {
		if data, err = onlyYAML(data); err != nil {
			return nil, driver.Invalidf("%s is neither JSON nor YAML of a workflow: %w", name, err)
		}
	}
	if id != "" {
		if data, err = withID(data, id); err != nil {
			return nil, err
		}
	}
	w, err := waggle.ParseWorkflow(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Unwrap(err)) // without the operation
	}
	return w, nil
}

// onlyYAML returns the YAML in data as JSON. What stands behind its end, such as a second workflow, is an error: it would be
// left out without a word.
func onlyYAML(data []byte) ([]byte, error) {
	if json.NewDecoder(bytes.NewReader(data)).Decode(new(json.RawMessage)) == nil {
		if trimmed := bytes.TrimSpace(data); bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[")) {
			return nil, errMoreBehind
		}
	}
	begun, ended := false, false
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#") || !begun && strings.HasPrefix(line, "%"):
		case strings.HasPrefix(line, "---") && words[0] == "---":
			if ended = ended || begun; ended && len(words) > 1 {
				return nil, errMoreBehind
			}
			begun = begun || len(words) > 1
		case strings.HasPrefix(line, "...") && words[0] == "...":
			ended = begun
		case ended:
			return nil, errMoreBehind
		default:
			begun = true
		}
	}
	return yaml.YAMLToJSONStrict(data)
}

var errMoreBehind = errors.New("something stands behind its end, and a file holds one workflow")

// withID sets the id of a workflow in JSON.
func withID(data []byte, id string) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return data, nil // what is wrong with it is found when it is read as a workflow
	}
	text, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	if fields == nil {
		fields = map[string]json.RawMessage{}
	}
	fields["id"] = text
	return json.Marshal(fields)
}

func (a *app) startWorkflow(ctx context.Context, c *waggle.Client, w *waggle.Workflow, wait bool) error {
	r, err := c.StartWorkflow(ctx, w)
	if err != nil {
		return err
	}
	if r.Existing {
		a.say("workflow %s already exists, %s: nothing was started", r.ID, r.State)
	}
	if wait {
		return a.waitWorkflow(ctx, c, r.ID, 0)
	}
	return a.printObject(r, func() error {
		_, err := fmt.Fprintln(a.out, r.ID)
		return err
	})
}

func (a *app) workflowListCommand() *cobra.Command {
	var states []string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the workflows", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				now, err := a.storeTime(cmd.Context(), c)
				if err != nil {
					return err
				}
				l := a.newList(left("WORKFLOW"), left("STATE"), right("AGE"), right("TOOK"), left("NOTE"))
				for w, err := range c.Workflows(cmd.Context(), states...) {
					if err == nil {
						err = l.add(w, func() []string { return []string{w.ID, w.State, roughly(now.Sub(w.Started)), tookText(w), w.Reason} })
					}
					if err != nil {
						return l.close(err)
					}
				}
				if l.count == 0 {
					a.say("no workflows")
				}
				return l.close(nil)
			})
		},
	}
	cmd.Flags().Var(&workflowStates{&states}, "state", "workflows in this state; may be repeated")
	return cmd
}

// workflowStates is a list of states of workflows.
type workflowStates struct{ value *[]string }

var allWorkflowStates = []string{waggle.WorkflowRunning, waggle.WorkflowStopping, waggle.WorkflowCompensating, waggle.WorkflowFinishing,
	waggle.WorkflowCompleted, waggle.WorkflowFailed, waggle.WorkflowCancelled}

func (s *workflowStates) Type() string   { return "STATE" }
func (s *workflowStates) String() string { return strings.Join(*s.value, ",") }

func (s *workflowStates) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		c := &choice{value: new(string), of: allWorkflowStates}
		if err := c.Set(word); err != nil {
			return err
		}
		*s.value = append(*s.value, word)
	}
	return nil
}

func tookText(w *waggle.WorkflowInfo) string {
	if w.Ended.IsZero() {
		return "-"
	}
	return roughly(w.Ended.Sub(w.Started))
}

func workflowID(cmd *cobra.Command, args []string) error {
	if err := oneArg("workflow id")(cmd, args); err != nil {
		return err
	}
	return driver.CheckName("workflow id", args[0], driver.MaxPlanName)
}

func (a *app) workflowGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show a workflow and where its steps stand", Args: workflowID, ValidArgsFunction: a.completeWorkflows,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				w, err := c.Workflow(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.printObject(w, func() error { return a.describeWorkflow(w) })
			})
		},
	}
}

func (a *app) describeWorkflow(w *waggle.WorkflowInfo) error {
	f := fieldWriter{term: a.outTerm}
	f.field("id", w.ID)
	f.field("state", a.outTerm.paint(workflowColour(w.State), w.State))
	f.field("reason", visible(w.Reason))
	f.field("started", clock(w.Started))
	f.field("ended", clock(w.Ended))
	f.field("deadline", clock(w.Deadline))
	if _, err := fmt.Fprintln(a.out, f.String()); err != nil {
		return err
	}
	l := a.newList(left("STEP"), left("STATE"), left("TASK"), left("AFTER"), left("NOTE"))
	for _, s := range append(append([]waggle.WorkflowStepInfo(nil), w.Steps...), w.Extra...) {
		if err := l.add(s, func() []string {
			return []string{s.Name, s.State, orDash(s.Task), orDash(strings.Join(s.After, ",")), stepNote(&s)}
		}); err != nil {
			return l.close(err)
		}
	}
	return l.close(nil)
}

// stepNote is what is worth knowing of a step in its state.
func stepNote(s *waggle.WorkflowStepInfo) string {
	var notes []string
	if s.Run > 1 {
		notes = append(notes, fmt.Sprintf("run %d", s.Run))
	}
	if s.State == "waiting" && s.Signal != "" {
		notes = append(notes, "for the signal "+s.Signal)
	}
	if !s.Until.IsZero() {
		notes = append(notes, "until "+clock(s.Until))
	}
	if s.Error != "" {
		notes = append(notes, s.Error)
	}
	if len(s.Result) > 0 {
		notes = append(notes, "= "+visible(string(s.Result)))
	}
	return strings.Join(notes, " · ")
}

func workflowColour(state string) colour {
	switch state {
	case waggle.WorkflowCompleted:
		return green
	case waggle.WorkflowFailed:
		return red
	case waggle.WorkflowCancelled:
		return magenta
	}
	return cyan
}

// formatMermaid is a format of workflow show alone.
const formatMermaid = "mermaid"

func (a *app) workflowShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Draw the graph of a workflow with the states of its steps", Args: workflowID, ValidArgsFunction: a.completeWorkflows,
		Long: "Draws the graph of a workflow, each step with its state, from the steps that wait for nothing down to the last.\n" +
			"With -o mermaid it prints a Mermaid flowchart, with -o json what `waggle workflow get` prints.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				w, err := c.Workflow(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.format == formatMermaid {
					_, err := fmt.Fprint(a.out, workflow.Mermaid(w))
					return err
				}
				return a.printObject(w, func() error { return a.drawWorkflow(w) })
			})
		},
	}
	a.format = formatTable
	cmd.Flags().VarP(&choice{value: &a.format, of: append(append([]string(nil), formats...), formatMermaid)}, "output", "o", "how it is printed: table, json, jsonl or mermaid")
	return cmd
}

// drawWorkflow draws a workflow by layers: each step stands below all that it waits for.
func (a *app) drawWorkflow(w *waggle.WorkflowInfo) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", a.outTerm.paint(bold, w.ID), a.outTerm.paint(workflowColour(w.State), w.State))
	for i, layer := range workflow.Layers(w) {
		if i > 0 {
			b.WriteString("  │\n")
		}
		for k, s := range layer {
			edge := "├─"
			if k == len(layer)-1 {
				edge = "└─"
			}
			after := ""
			if len(s.After) > 0 {
				after = a.outTerm.paint(dim, "  ← "+shortList(s.After))
			}
			fmt.Fprintf(&b, "  %s %s %s  %s%s\n", edge, stepMark(s.State), s.Name, a.outTerm.paint(stepColour(s.State), s.State), after)
		}
	}
	for _, s := range w.Extra {
		fmt.Fprintf(&b, "  %s %s  %s\n", stepMark(s.State), s.Name, s.State)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func shortList(names []string) string {
	if len(names) > 4 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

func stepMark(state string) string {
	switch state {
	case "completed":
		return "✓"
	case "failed", "cancelled":
		return "✗"
	case "running":
		return "▶"
	case "waiting":
		return "…"
	case "compensated":
		return "↩"
	case "skipped":
		return "-"
	}
	return "·"
}

func stepColour(state string) colour {
	switch state {
	case "completed":
		return green
	case "failed":
		return red
	case "running":
		return cyan
	case "waiting":
		return yellow
	case "cancelled", "compensated":
		return magenta
	}
	return dim
}

func (a *app) workflowCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel a workflow; its running tasks are told to stop", Args: workflowID, ValidArgsFunction: a.completeWorkflows,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.CancelWorkflow(cmd.Context(), args[0]); err != nil {
					return err
				}
				return a.workflowState(cmd.Context(), c, args[0])
			})
		},
	}
}

func (a *app) workflowRetryCommand() *cobra.Command {
	from := ""
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Run an ended workflow again, from what did not complete or from a step", Args: workflowID, ValidArgsFunction: a.completeWorkflows,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.RetryWorkflow(cmd.Context(), args[0], from); err != nil {
					return err
				}
				return a.workflowState(cmd.Context(), c, args[0])
			})
		},
	}
	cmd.Flags().Var(&name{&from, "step"}, "from", "this step and all steps after it, whether they completed or not")
	return cmd
}

// workflowState tells where a workflow stands after a change.
func (a *app) workflowState(ctx context.Context, c *waggle.Client, id string) error {
	w, err := c.Workflow(ctx, id)
	if err != nil {
		return err
	}
	return a.printObject(w, func() error {
		a.say("workflow %s is %s", w.ID, w.State)
		return nil
	})
}

func (a *app) workflowSignalCommand() *cobra.Command {
	id := ""
	cmd := &cobra.Command{
		Use: "signal ID SIGNAL [JSON]", Short: "Send a signal to a workflow that waits for it", ValidArgsFunction: a.completeWorkflows,
		Long: "Sends a signal to a workflow: the step that waits for it has ended, with the JSON as its result. A signal that\n" +
			"comes before a step waits for it is kept. With --id it can be sent again and counts once.",
		Example: "  waggle workflow signal order-17 approved '{\"by\": \"Kim\"}'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return driver.Invalidf("`%s` takes a workflow id, a signal and optional JSON, got %s: see `%s --help`", cmd.CommandPath(), plural(len(args), "argument"), cmd.CommandPath())
			}
			if err := driver.CheckName("workflow id", args[0], driver.MaxPlanName); err != nil {
				return err
			}
			if len(args) == 3 && !json.Valid([]byte(args[2])) {
				return driver.Invalidf("the payload of the signal is no JSON: put a text into quotes within the quotes, '\"like this\"'")
			}
			return driver.CheckName("signal", args[1], driver.MaxNameLen)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			payload := json.RawMessage("null")
			if len(args) == 3 {
				payload = json.RawMessage(args[2])
			}
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.SignalWorkflow(cmd.Context(), args[0], args[1], id, payload); err != nil {
					return err
				}
				return a.printObject(sentSignal{Workflow: args[0], Signal: args[1]}, func() error {
					a.say("signal %s is sent to workflow %s", args[1], args[0])
					return nil
				})
			})
		},
	}
	cmd.Flags().Var(&name{&id, "signal id"}, "id", "an id, so that the signal counts once however often it is sent")
	return cmd
}

type sentSignal struct {
	Workflow string `json:"workflow"`
	Signal   string `json:"signal"`
}

func (a *app) workflowWaitCommand() *cobra.Command {
	var most time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait until a workflow has ended", Args: workflowID, ValidArgsFunction: a.completeWorkflows,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.waitWorkflow(cmd.Context(), c, args[0], most) })
		},
	}
	cmd.Flags().Var(&span{&most, time.Millisecond}, "for", "give up after this time")
	return cmd
}

func (a *app) waitWorkflow(ctx context.Context, c *waggle.Client, id string, most time.Duration) error {
	waitCtx := ctx
	if most > 0 {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeoutCause(ctx, most, errWaitedLongEnough)
		defer cancel()
	}
	w, err := c.WaitWorkflow(waitCtx, id)
	switch {
	case err != nil && context.Cause(waitCtx) == errWaitedLongEnough:
		return failf("workflow %s has not ended after %s; it goes on", id, shortDuration(most))
	case err != nil && ctx.Err() != nil:
		a.say("workflow %s goes on", id)
		return err
	case err != nil:
		return err
	}
	if err := a.printObject(w, func() error { return a.describeWorkflow(w) }); err != nil {
		return err
	}
	if w.State != waggle.WorkflowCompleted {
		return failf("workflow %s is %s: %s", w.ID, w.State, w.Reason)
	}
	return nil
}

// completeWorkflows completes ids of workflows.
func (a *app) completeWorkflows(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	err := a.prepare(cmd)
	if err == nil {
		err = a.withClient(cmd.Context(), func(c *waggle.Client) error {
			for w, err := range c.Workflows(cmd.Context()) {
				if err != nil {
					return err
				}
				if strings.HasPrefix(w.ID, begun) && len(list) < completeLook {
					list = append(list, w.ID+"\t"+w.State)
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
