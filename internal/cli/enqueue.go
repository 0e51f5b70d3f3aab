package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// enqueueFlags are the flags of waggle enqueue.
type enqueueFlags struct {
	options     waggle.EnqueueOptions
	uniqueKey   string
	uniqueAuto  bool
	uniqueUntil string
	uniqueTTL   time.Duration
	onConflict  string
	durability  string
	lines, raw  bool
	jsonl       bool
	wait        bool
}

func (a *app) enqueueCommand() *cobra.Command {
	f := &enqueueFlags{}
	cmd := &cobra.Command{
		Use:   "enqueue TYPE [JSON|-]",
		Short: "Add a task, or one for each line of standard input",
		Long: "Adds a task of a type. Its payload is the JSON given, or what standard input holds for -, or nothing.\n" +
			"With --lines every line of standard input becomes a task, with the line as a JSON string for its payload. With --jsonl\n" +
			"every line is a whole task: {\"type\": …, \"payload\": …, \"queue\": …, \"priority\": …, \"delay\": \"5m\", …}. Options may also be\n" +
			"in an object named \"options\"; those left out are as the flags say. Lines are stored as they come, within 100 ms;\n" +
			"after Ctrl-C the command says how far it came.\n\n" +
			"Prints the ids of the tasks; with -o json their receipts.",
		Example: "  waggle enqueue email.welcome '{\"user\": 42}'\n" +
			"  waggle enqueue report.nightly --at '2030-01-01 03:00' --id report-2030-01-01\n" +
			"  find . -name '*.jpg' | waggle enqueue thumbnail --lines\n" +
			"  waggle enqueue --jsonl <tasks.jsonl",
		GroupID: "use",
		Args:    cobra.ArbitraryArgs, // which are right depends on flags that may come from the environment
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.enqueue(cmd.Context(), f, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.register(cmd)
	return cmd
}

func (f *enqueueFlags) checkArgs(args []string) error {
	switch {
	case f.jsonl && (len(args) > 1 || len(args) == 1 && args[0] != "-"):
		return driver.Invalidf("with --jsonl the tasks come from standard input, each with its type: leave out %q", args[0])
	case f.jsonl:
		return nil
	case len(args) == 0:
		return driver.Invalidf("the type of the task is missing: waggle enqueue TYPE [JSON]")
	case len(args) > 2:
		return driver.Invalidf("expected a type and a payload, got %d arguments: put quotes around the JSON", len(args))
	}
	return driver.CheckName("task type", args[0], driver.MaxNameLen)
}

func (f *enqueueFlags) register(cmd *cobra.Command) {
	flags, o := cmd.Flags(), &f.options
	flags.BoolVar(&f.lines, "lines", false, "every line of standard input is a task")
	flags.BoolVar(&f.jsonl, "jsonl", false, "every line of standard input is a task in JSON, with its type, payload and options")
	flags.BoolVar(&f.raw, "raw", false, "standard input is bytes, not JSON (with -)")
	flags.BoolVar(&f.wait, "wait", false, "wait until the task has ended and print its result")
	flags.Var(&name{&o.Queue, "queue"}, "queue", "the queue (default \"default\")")
	flags.Var(&span{value: &o.Delay}, "in", "run it after this time has passed")
	flags.Var(&moment{&o.At}, "at", "run it no earlier than at this time")
	flags.Var(&name{&o.ID, "task id"}, "id", "the task's id; a second task with the same id is not added")
	flags.BoolVar(&o.RejectDiffering, "reject-differing", false, "fail if the task that has the id differs in type, queue or payload")
	flags.Var(&count{&o.Priority, -driver.MaxPriority, driver.MaxPriority}, "priority", "-100 to 100, lower runs first")
	flags.Var(&name{&o.Key, "task key"}, "key", "the tenant or sequence it belongs to: keys share a queue")
	flags.Var(&count{&o.Weight, 1, driver.MaxWeight}, "weight", "the key's share of the queue (default 1)")
	flags.Var(&count{&o.MaxAttempts, 1, driver.MaxAttemptsCap}, "max-attempts", "how often it may fail (default 25)")
	flags.Var(&count{&o.CrashLimit, 1, driver.MaxAttemptsCap}, "crash-limit", "how many workers may die running it before it is discarded (default 5)")
	flags.Var(&span{&o.Timeout, time.Millisecond}, "timeout", "how long one attempt may run (default no limit)")
	flags.Var(&span{&o.ExpiresIn, time.Millisecond}, "expires-in", "drop it if it has not started within this time")
	flags.Var(&headers{&o.Headers}, "header", "a header; may be repeated")
	flags.Var(&names{&o.Tags, "tag"}, "tag", "a tag to search by; may be repeated")
	flags.BoolVar(&o.Hold, "hold", false, "hold it back until 'waggle task run'")
	flags.StringVar(&f.uniqueKey, "unique", "", "let no second task in with this `KEY`")
	flags.BoolVar(&f.uniqueAuto, "unique-payload", false, "let no second task in with the same type, queue and payload")
	flags.Var(&choice{&f.uniqueUntil, []string{"done", "started", "ttl"}}, "unique-until", "when the key is free again (default \"done\")")
	flags.Var(&span{&f.uniqueTTL, time.Millisecond}, "unique-ttl", "for how long the key is taken (implies --unique-until ttl)")
	flags.Var(&choice{&f.onConflict, []string{"return", "reject", "replace"}}, "on-conflict", "if the key is taken: return the task that has it, reject the new one, or replace the old one (default \"return\")")
	flags.Var(&choice{&f.durability, []string{"memory", "disk", "replicated"}}, "durability", "how safely it is stored (default: as the store does)")
	// A default of 0 stands for the store's own; it is told in the text above.
	flags.Lookup("max-attempts").DefValue = ""
	flags.Lookup("crash-limit").DefValue = ""
	flags.Lookup("priority").DefValue = ""
	flags.Lookup("weight").DefValue = ""
}

// complete checks what the flags say together, and makes the options of it.
func (f *enqueueFlags) complete() error {
	o := &f.options
	o.Durability = driver.Durability(f.durability)
	switch {
	case o.Delay > 0 && !o.At.IsZero():
		return driver.Invalidf("--in and --at both say when to run: use one of them")
	case f.uniqueKey != "" && f.uniqueAuto:
		return driver.Invalidf("--unique and --unique-payload are two kinds of key: use one of them")
	case f.uniqueKey == "" && !f.uniqueAuto && (f.uniqueUntil != "" || f.uniqueTTL > 0 || f.onConflict != ""):
		return driver.Invalidf("--unique-until, --unique-ttl and --on-conflict need --unique KEY or --unique-payload")
	case f.uniqueTTL > 0 && f.uniqueUntil != "" && f.uniqueUntil != "ttl":
		return driver.Invalidf("--unique-ttl goes with --unique-until ttl only")
	case f.uniqueUntil == "ttl" && f.uniqueTTL == 0:
		return driver.Invalidf("--unique-until ttl needs --unique-ttl")
	case len(f.uniqueKey) > driver.MaxUniqueLen:
		return driver.Invalidf("the unique key is %d bytes long, %d are allowed", len(f.uniqueKey), driver.MaxUniqueLen)
	case o.Weight > 0 && o.Key == "":
		return driver.Invalidf("--weight is the share of a key: give --key too")
	case o.RejectDiffering && o.ID == "":
		return driver.Invalidf("--reject-differing needs --id")
	case f.lines && f.jsonl:
		return driver.Invalidf("--lines and --jsonl are two kinds of line: use one of them")
	case (f.lines || f.jsonl) && (o.ID != "" || f.uniqueKey != "" || f.wait || f.raw):
		return driver.Invalidf("--id, --unique, --wait and --raw are for one task, not for --lines and --jsonl; --unique-payload works with them")
	}
	if f.uniqueKey != "" || f.uniqueAuto {
		until := f.uniqueUntil
		if f.uniqueTTL > 0 {
			until = "ttl"
		}
		o.Unique = &waggle.UniqueOptions{Key: f.uniqueKey, Until: driver.UniqueUntil(until), TTL: f.uniqueTTL, OnConflict: driver.OnConflict(f.onConflict)}
	}
	return nil
}

// check runs the contract's own checks before a store is opened, for what the flags' types don't see.
func (f *enqueueFlags) check(typ string, payload any) error {
	o := &f.options
	task := &driver.Task{Type: typ, ID: o.ID, Queue: o.Queue, Headers: o.Headers, Tags: o.Tags, At: o.At}
	switch p := payload.(type) {
	case json.RawMessage:
		task.Payload = p
	case []byte:
		task.Payload, task.Encoding = p, driver.EncodingRaw
	}
	limits := driver.Limits{MaxPayload: math.MaxInt} // the store knows its own
	return driver.Prepare(task, driver.Capabilities{Limit: limits}, time.Now())
}

func (a *app) enqueue(ctx context.Context, f *enqueueFlags, args []string) error {
	if err := f.checkArgs(args); err != nil {
		return err
	}
	if err := f.complete(); err != nil {
		return err
	}
	if f.jsonl {
		return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error { return a.enqueueLines(ctx, c, "", f) })
	}
	typ := args[0]
	if f.lines {
		if len(args) == 2 && args[1] != "-" {
			return driver.Invalidf("with --lines the payloads come from standard input: leave out %q", args[1])
		}
		if err := f.check(typ, nil); err != nil {
			return err
		}
		return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error { return a.enqueueLines(ctx, c, typ, f) })
	}
	payload, err := a.payload(ctx, f, args[1:])
	if err != nil {
		return err
	}
	if err := f.check(typ, payload); err != nil {
		return err
	}
	return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error { return a.enqueueOne(ctx, c, typ, payload, f) })
}

// maxInput bounds what is read from standard input as one payload: no store takes more.
const maxInput = 16 << 20

// payload returns the payload that the arguments name: nil, json.RawMessage, or []byte with --raw.
func (a *app) payload(ctx context.Context, f *enqueueFlags, args []string) (any, error) {
	stdin := len(args) == 1 && args[0] == "-"
	if f.raw && !stdin {
		return nil, driver.Invalidf("--raw reads the payload from standard input: waggle enqueue TYPE - --raw")
	}
	if len(args) == 0 {
		return nil, nil
	}
	if !stdin {
		return jsonPayload([]byte(args[0]))
	}
	text, err := a.readInput(ctx)
	switch {
	case ctx.Err() != nil:
		a.say("nothing was added")
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("reading the payload from standard input: %w", err)
	case len(text) > maxInput:
		return nil, driver.Invalidf("the payload on standard input is longer than %d bytes, more than any store takes: store a file's name instead", maxInput)
	case f.raw:
		return text, nil
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, driver.Invalidf("standard input is empty: leave out the - for a task without a payload")
	}
	return jsonPayload(text)
}

// readInput reads standard input, one byte more than is allowed at most. When ctx ends it returns at once, and a read that
// blocks is left behind.
func (a *app) readInput(ctx context.Context) ([]byte, error) {
	a.sayReading("the payload")
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(a.in, maxInput+1))
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sayReading tells who sits at a terminal that the command waits for what they type.
func (a *app) sayReading(what string) {
	if a.inTerm.is {
		a.say("reading %s from standard input, until Ctrl-D", what)
	}
}

func jsonPayload(text []byte) (any, error) {
	if !json.Valid(text) {
		var v any
		reason := cmp.Or(json.Unmarshal(text, &v), errors.New("it is not one JSON value"))
		return nil, driver.Invalidf("the payload is not valid JSON (%w): %s", reason, howToQuote(text))
	}
	return json.RawMessage(bytes.TrimSpace(text)), nil // the line break of echo is no part of it
}

// howToQuote says how to write a payload that is not JSON: an object, a list or a text.
func howToQuote(text []byte) string {
	switch text = bytes.TrimSpace(text); {
	case bytes.HasPrefix(text, []byte("{")), bytes.HasPrefix(text, []byte("[")):
		return `names and strings take double quotes, the whole single ones, as in '{"name": "value"}'`
	}
	return `write text as '"text"', with both kinds of quotes`
}

// receipt is a waggle.Receipt, and with --wait how the task ended.
type receipt struct {
	waggle.Receipt
	Reason driver.Reason   `json:"reason,omitzero"`
	Result json.RawMessage `json:"result,omitzero"`
	Error  string          `json:"error,omitzero"`
}

func (a *app) enqueueOne(ctx context.Context, c *waggle.Client, typ string, payload any, f *enqueueFlags) error {
	got, err := c.Enqueue(ctx, typ, payload, &f.options)
	if err != nil {
		if ctx.Err() != nil && got.ID != "" { // the store was not heard out
			a.say("task %s may have been added: `waggle task get %s` tells, and adding it again with --id %s is safe", got.ID, got.ID, got.ID)
		}
		return err
	}
	if got.Existing {
		note := ""
		if len(got.Differs) > 0 {
			note = "; it is a different task (differs: " + strings.Join(got.Differs, ", ") + ")"
		}
		a.say("task %s already exists, in state %s: nothing was added%s", got.ID, got.State, note)
	}
	if f.wait {
		return a.awaitResult(ctx, c, got)
	}
	return a.printReceipts(receipt{Receipt: got})
}

func (a *app) printReceipts(r receipt) error {
	l := a.newReceiptList()
	return l.close(l.add(r, nil))
}

// newReceiptList begins a list of receipts; as a table it is just the ids, one a line.
func (a *app) newReceiptList() *list {
	l := a.newList()
	if a.format == formatTable {
		l.format, l.table = formatIDs, nil
	}
	return l
}

// awaitResult waits for the end of a task and prints its result: as text if it is a JSON string.
func (a *app) awaitResult(ctx context.Context, c *waggle.Client, got waggle.Receipt) error {
	info, err := c.Wait(ctx, got.ID)
	if err != nil {
		if ctx.Err() != nil {
			a.say("task %s stays where it is: `waggle task wait %s` goes on waiting", got.ID, got.ID)
		}
		return err
	}
	got.State = info.State
	r := receipt{Receipt: got, Reason: info.Reason, Error: info.LastError()}
	r.Result, err = resultJSON(info)
	if err != nil {
		return err
	}
	if a.format == formatTable {
		err = a.printText(r.Result)
	} else {
		err = a.printReceipts(r)
	}
	if err != nil || info.State == driver.Completed {
		return err
	}
	return failf("task %s was %s (%s)%s", info.ID, info.State, info.Reason, colonText(r.Error))
}

func colonText(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// printText prints a result for people: the text of a JSON string, other JSON as it is.
func (a *app) printText(value json.RawMessage) error {
	if len(value) == 0 || string(value) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}
