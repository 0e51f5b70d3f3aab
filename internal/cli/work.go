package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/execwork"
)

// workSlots is how many commands run at once by default: they are processes, not goroutines.
const workSlots = 4

// maxSlots bounds --slots.
const maxSlots = 10_000

// workFlags are the flags of waggle work.
type workFlags struct {
	queues     []waggle.Queue
	types      []string
	strict     bool
	slots      int
	lease      time.Duration
	drain      time.Duration
	grace      time.Duration
	untilEmpty bool
	intake     []waggle.Intake
	name       string
	verbose    bool
	quiet      bool
}

func (a *app) workCommand() *cobra.Command {
	f := &workFlags{slots: workSlots, lease: driver.DefaultLease, drain: 25 * time.Second, grace: execwork.DefaultGrace}
	cmd := &cobra.Command{
		Use:   "work [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command for each task",
		Long: "Runs COMMAND once for each task, never through a shell.\n\n" +
			"It gets the payload on standard input, and for every argument that is just {} the text of a payload that is a JSON string,\n" +
			"or a number, true, false or null as it is written. An object, a list, bytes or no payload can't stand there: the worker\n" +
			"stops with exit code 2 then, and leaves the task as it was.\n" +
			"One that begins with a dash looks like a flag to many a COMMAND: write -- before the {} where COMMAND knows that.\n" +
			"In its environment are WAGGLE_STORE and, of the task, WAGGLE_TASK_ID, _TYPE, _QUEUE, _ATTEMPT, _MAX_ATTEMPTS, _CRASHES,\n" +
			"_TOKEN, _WORKER, _PRIORITY, _ENQUEUED_AT and, as JSON, _HEADERS; other WAGGLE_ variables, the settings of this worker,\n" +
			"are not. The token is greater than that of every earlier run of the task: a system that remembers the greatest can refuse a late one.\n\n" +
			"Standard output is the result: kept as JSON if it is JSON, else as text without its last line break (64 KiB at\n" +
			"most; longer output is cut, and the task's log says so). Standard error goes to the task's log, and its end is\n" +
			"the error of a failed attempt. Exit status 0 completes the task, 65 discards it, any other tries it again later.\n" +
			"A command that does not start costs the task nothing: it is given back at once, and its slot pauses, longer each time.\n" +
			"On a timeout or a cancellation its process group gets SIGTERM, and SIGKILL after the grace period. On Linux nothing\n" +
			"that a command started outlives this worker, however it ends. SIGTERM, SIGINT and SIGHUP stop it gracefully.\n\n" +
			"With --intake, plain list elements on a Redis or Valkey server become tasks: any program that can RPUSH is a\n" +
			"producer. No element is lost and none becomes two tasks, however many workers take in a list and die at it.",
		Example: "  waggle work -- ./resize.sh {}\n" +
			"  waggle work --queue urgent=10 --queue default --slots 8 -- python3 handle.py\n" +
			"  waggle work --until-empty -- sha256sum -- {}\n" +
			"  waggle work --store redis://127.0.0.1 --intake tasks=note -- ./note.sh {}",
		GroupID: "use",
		Args:    workArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.work(cmd.Context(), f, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command's name is the command's
	flags.Var(&weights{&f.queues}, "queue", "a queue to serve, and its share; may be repeated (default: the queue \"default\")")
	flags.Var(&names{&f.types, "task type"}, "type", "a type to serve; may be repeated (default all)")
	flags.Var(&intakes{&f.intake}, "intake", "a list that other programs fill, and the type of the tasks its elements become; may be repeated")
	flags.BoolVar(&f.strict, "strict", false, "serve the queues in the order given, not by share")
	flags.Var(&count{&f.slots, 1, maxSlots}, "slots", "how many commands run at once")
	flags.SetNormalizeFunc(oldFlagNames)
	flags.Var(&span{&f.lease, driver.MinLease}, "lease", "how soon others take over if this worker dies")
	flags.Var(&span{value: &f.drain}, "drain", "how long running commands may go on after a stop")
	flags.Var(&span{value: &f.grace}, "grace", "time between SIGTERM and SIGKILL")
	flags.BoolVar(&f.untilEmpty, "until-empty", false, "stop when nothing is left to run in these queues and types")
	flags.Var(&name{&f.name, "worker name"}, "name", "a name for this worker (default: the host's)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log each task")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "log only problems of the worker itself")
	return cmd
}

// formerNames are flags that had another name, which goes on to work, by their name of today.
var formerNames = map[string]string{"slots": "concurrency"}

func oldFlagNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	for today, former := range formerNames {
		if name == former {
			name = today
		}
	}
	return pflag.NormalizedName(name)
}

func workArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return driver.Invalidf("no command is given: write it after --, as in: waggle work -- sha256sum {}")
	}
	return nil
}

func (a *app) work(ctx context.Context, f *workFlags, argv []string) error {
	if f.lease > driver.MaxLease {
		return driver.CheckLease(f.lease)
	}
	a.neverWait()
	command, err := execwork.New(argv, f.grace)
	if err != nil {
		return err
	}
	store, err := a.open(ctx, a.openOrMake)
	if err != nil {
		return err
	}
	defer store.Close()
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	h := &execHandler{command: command, store: a.store, stop: stop}
	opts, abort := a.workerOptions(f, h), make(chan struct{})
	opts.Abort = abort
	worker, err := waggle.NewWorker(store, opts)
	if err != nil {
		return err
	}
	for _, typ := range f.types {
		worker.HandleFunc(typ, h.run, nil)
	}
	a.signals.onLast(func() {
		command.Hurry()
		close(abort)
	})
	a.signals.onFirst(func() {
		a.say("waggle: stopping: running commands have %s (again: stop at once)", shortDuration(f.drain))
	})
	a.signals.hangup()
	a.introduce(f, argv, store.Capabilities())
	err = worker.Run(run)
	stats := worker.Stats()
	a.say("waggle: %s", workSummary(&stats))
	if cause := context.Cause(run); err == nil && errors.Is(cause, driver.ErrInvalid) {
		return cause
	}
	if err == nil && context.Cause(ctx) == errInterrupted {
		return errInterrupted
	}
	if n := int(stats.Discarded); err == nil && f.untilEmpty && n > 0 {
		return partlyf("%s: `waggle task list --state discarded` shows them", wasOrWere(n, "task")+" discarded")
	}
	return err
}

func (a *app) workerOptions(f *workFlags, h *execHandler) *waggle.WorkerOptions {
	level := slog.LevelInfo
	switch {
	case f.quiet:
		level = slog.LevelWarn
	case f.verbose:
		level = slog.LevelDebug
	}
	anyType := waggle.Handler(h.run)
	if len(f.types) > 0 {
		anyType = nil // only the types that are registered
	}
	return &waggle.WorkerOptions{
		Queues: f.queues, StrictQueues: f.strict, Slots: f.slots, Lease: f.lease, DrainTimeout: cmp.Or(f.drain, waggle.NoDrain),
		UntilEmpty: f.untilEmpty, Intake: f.intake, Name: f.name, Build: version(), AnyType: anyType,
		Logger: a.workLog(level),
	}
}

// introduce tells what this worker is about to do, defaults included.
func (a *app) introduce(f *workFlags, argv []string, caps waggle.Capabilities) {
	queues, types := "default", "all types"
	if len(f.queues) > 0 {
		words := make([]string, len(f.queues))
		for i, q := range f.queues {
			words[i] = describeQueue(q)
		}
		queues = strings.Join(words, ", ")
	}
	if len(f.types) > 0 {
		types = "type " + strings.Join(f.types, ", ")
	}
	a.say("waggle: worker on %s; %s", a.storeURL(), levelText(caps))
	a.say("waggle: queue %s, %s, %s, lease %s, drain %s", queues, types, plural(f.slots, "slot"), shortDuration(f.lease), shortDuration(f.drain))
	for _, in := range f.intake {
		a.say("waggle: list %s is taken in: its elements become tasks of type %s in queue %s", in.List, in.Type, cmp.Or(in.Queue, firstQueue(f.queues)))
	}
	a.say("waggle: runs %s", strings.Join(argv, " "))
	for _, arg := range argv {
		if arg != "{}" && strings.Contains(arg, "{}") {
			a.say("waggle: {} stands for the payload only where it is an argument of its own; it is left as it is in %q", arg)
		}
	}
}

// levelText says at what level a store keeps tasks unless they ask for more, and how to get the next.
func levelText(c waggle.Capabilities) string {
	text := "tasks are stored at level " + string(c.DefaultDurability)
	if c.Stronger != "" {
		text += "; " + c.Stronger
	}
	return text
}

// firstQueue is where the elements of a list go that names no queue.
func firstQueue(queues []waggle.Queue) string {
	if len(queues) == 0 {
		return "default"
	}
	return queues[0].Name
}

// execHandler runs the command for each task.
type execHandler struct {
	command   *execwork.Command
	store     string       // --store
	unstarted atomic.Int64 // commands in a row that did not start
	stop      context.CancelCauseFunc
}

func (h *execHandler) run(ctx context.Context, t *waggle.Task) error {
	log := t.Logger()
	out, err := h.command.Run(ctx, &execwork.Input{
		Payload: t.Payload, Raw: t.Encoding == driver.EncodingRaw, Vars: h.vars(t),
		Log: func(line string) { log.Info(line) },
	})
	switch {
	case errors.Is(err, execwork.ErrDiscard):
		return waggle.Discard(err)
	case errors.Is(err, execwork.ErrNotStarted):
		return h.pause(err)
	case errors.Is(err, execwork.ErrUnfit):
		return h.misused(t, err)
	case err != nil:
		return err
	}
	h.unstarted.Store(0)
	if out.Cut {
		log.Warn(fmt.Sprintf("the output of %d bytes is too long for a result, which has its beginning only", out.Written))
	}
	return setResult(t, out)
}

// The pauses of a worker whose command does not start: the first, and the longest. They double in between.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// pause gives back a task whose command did not start: no attempt is spent, as it is not the task's fault. The slot pauses
// then, longer each time, so that a worker that can't work does not go through its queues in vain.
func (h *execHandler) pause(err error) error {
	wait := min(firstPause<<min(h.unstarted.Add(1)-1, 10), longestPause)
	return waggle.GiveBack(wait, fmt.Errorf("%w: the task is given back, and this slot pauses for %s", err, shortDuration(wait)))
}

// misused stops the worker, whose command can't be run for a task of this kind, and gives the task back.
func (h *execHandler) misused(t *waggle.Task, err error) error {
	h.stop(driver.Invalidf("task %s of type %s: %w, or serve other types with --type; the task is left as it was", t.ID, t.Type, err))
	return waggle.GiveBack(longestPause, nil)
}

func setResult(t *waggle.Task, out *execwork.Output) error {
	switch {
	case len(out.Result) == 0:
		return nil
	case out.Raw:
		return t.SetResult(out.Result)
	}
	return t.SetResult(json.RawMessage(out.Result))
}

// workSummary says how the tasks of a worker have ended, as its store has told.
func workSummary(st *waggle.WorkerStats) string {
	text := fmt.Sprintf("%s completed, %d discarded, %s failed", plural(int(st.Completed), "task"), st.Discarded, plural(int(st.Failed), "attempt"))
	for _, more := range []struct {
		n    int64
		word string
	}{{st.Cancelled, "cancelled"}, {st.GivenBack, "given back"}, {st.Late, "ended too late"}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %d %s", more.n, more.word)
		}
	}
	return text
}
