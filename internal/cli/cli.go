// Package cli is the waggle command.
//
// Data goes to standard output, words go to standard error. Every flag can be set in the environment, as WAGGLE_ and
// the flag's name in capitals. What a command needs to know it checks before it opens the store, so that refused input
// changes nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/execwork"
	"github.com/waggleq/waggle/stores"
)

// Main runs the command with the arguments that follow its name and returns its exit code.
func Main(args []string) int {
	if len(args) == 1 && args[0] == execwork.KeepCommand {
		return execwork.Keep()
	}
	ctx, signals := watchSignals(context.Background())
	defer signals.close()
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, signals: signals,
		outTerm: describeTerminal(os.Stdout), errTerm: describeTerminal(os.Stderr), inTerm: describeTerminal(os.Stdin),
	}
	return a.run(ctx, args)
}

// app is one run of the command.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	signals  *signals

	inTerm, outTerm, errTerm terminal

	store       string // --store
	format      string // --output
	quietClient bool   // a client's troubles are part of the plot

	began bool // the command itself has begun: errors before are usage errors
	room  roomWait

	sides []*sideWriter // flushed at the end
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.began {
		err = usageError(err)
	}
	code := a.finish(ctx, err)
	for _, s := range a.sides {
		s.flush(sidePatience)
	}
	return code
}

// neverWait has nothing wait for whoever reads what this command prints.
func (a *app) neverWait() {
	a.sides = []*sideWriter{newSideWriter(a.out), newSideWriter(a.err)}
	a.out, a.err = a.sides[0], a.sides[1]
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "waggle",
		Short: "A task queue for one machine or many",
		Long: "Waggle is a task queue. It needs no service: the queue is a file that all programs on this machine share, or a\n" +
			"Redis server for many machines. Begin with `waggle demo`.",
		Example: "  waggle enqueue checksum '\"/etc/hosts\"'\n" +
			"  waggle work --until-empty -- sha256sum {}\n" +
			"  waggle task list",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
		Args:              noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = version()
	root.SetVersionTemplate(versionLine())
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetHelpFunc(a.printHelp)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, err) })
	flags := root.PersistentFlags()
	flags.StringVar(&a.store, "store", "", "the store's `URL`: sqlite:PATH or redis://HOST (default: a file in your state directory)")
	a.format = formatTable
	flags.VarP(&choice{value: &a.format, of: formats}, "output", "o", "how data is printed: table, json or jsonl")
	for _, group := range commandGroups {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
	}
	root.SetHelpCommandGroupID("about")
	root.SetCompletionCommandGroupID("about")
	root.AddCommand(a.demoCommand(), a.demoWorkerCommand(), a.enqueueCommand(), a.workCommand(), a.scheduleCommand(), a.workflowCommand(), a.taskCommand(), a.queueCommand(),
		a.workerCommand(), a.typeCommand(), a.eventsCommand(), a.infoCommand(), a.topCommand(), a.benchCommand(), a.versionCommand(), a.manCommand())
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = helpArgs
	}
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args, completion.RunE = noCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return root
}

var commandGroups = []struct{ id, title string }{
	{"use", "Use the queue:"},
	{"watch", "Operate it:"},
	{"about", "About:"},
}

// prepare runs before every command: it takes unset flags from the environment and notes that the command begins.
func (a *app) prepare(cmd *cobra.Command) error {
	if err := a.flagsFromEnv(cmd.Flags()); err != nil {
		return err
	}
	if err := refuseEmpty(cmd.Flags()); err != nil {
		return err
	}
	if a.store != "" || cmd.Flags().Changed("store") {
		if err := stores.Check(a.store); err != nil {
			return err
		}
	}
	a.began = true
	return nil
}

// flagsFromEnv sets the flags that were not given from WAGGLE_NAME. Empty variables count as unset. A flag that may be
// repeated takes a list.
func (a *app) flagsFromEnv(flags *pflag.FlagSet) error {
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "WAGGLE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := a.env(name)
		if former := formerNames[f.Name]; value == "" && former != "" && flags.GetNormalizeFunc()(flags, former) == pflag.NormalizedName(f.Name) {
			name = "WAGGLE_" + strings.ToUpper(former)
			value = a.env(name)
		}
		if f.Changed || value == "" || f.Name == "help" || f.Name == "version" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
				err = bad.Unwrap()
			}
			problems = append(problems, driver.Invalidf("%s=%q in the environment: %w", name, value, err))
		}
	})
	return errors.Join(problems...)
}

// storeURL is the URL of the store in use, for people.
func (a *app) storeURL() string {
	if a.store != "" {
		return stores.Redact(a.store)
	}
	u, err := stores.DefaultURL()
	if err != nil {
		return "(no default store)"
	}
	return u
}

// openOrMake opens the store that the user named, or the default one, and makes it if needed: what is to be there for
// commands that add tasks or run workers.
func (a *app) openOrMake(ctx context.Context) (driver.Store, error) {
	if a.store == "" {
		return stores.OpenDefault(ctx)
	}
	return stores.Open(ctx, a.store)
}

// openExisting is openOrMake for commands that only look: they make no store.
func (a *app) openExisting(ctx context.Context) (driver.Store, error) {
	u := a.store
	if u == "" {
		var err error
		if u, err = stores.DefaultURL(); err != nil {
			return nil, err
		}
	}
	return stores.OpenExisting(ctx, u)
}

// opening opens a store.
type opening func(context.Context) (driver.Store, error)

// open opens the store that the user named. Stores that other processes can't see are refused, as what is put in would
// be lost with this process.
func (a *app) open(ctx context.Context, how opening) (driver.Store, error) {
	store, err := how(ctx)
	if _, unknown := stores.DefaultURL(); err != nil && a.store == "" && unknown != nil {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", a.storeURL(), err)
	}
	if !store.Capabilities().Shared {
		_ = store.Close()
		return nil, driver.Invalidf("the store %s is gone when this command ends: use sqlite:PATH", a.storeURL())
	}
	return store, nil
}

// withClient opens the store, which must be there, runs do, and closes both client and store.
func (a *app) withClient(ctx context.Context, do func(c *waggle.Client) error) error {
	return a.withClientOf(ctx, a.openExisting, do)
}

func (a *app) withClientOf(ctx context.Context, how opening, do func(c *waggle.Client) error) (err error) {
	store, err := a.open(ctx, how)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: a.clientLog(), QueueWait: a.tellFull})
	if err != nil {
		return err
	}
	err = do(client)
	return errors.Join(err, client.Close(context.WithoutCancel(ctx)))
}

// say prints words, as a line of standard error.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", GroupID: "about", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return a.printObject(v, func() error {
				_, err := fmt.Fprint(a.out, versionLine())
				return err
			})
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("waggle %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

type versionInfo struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}
