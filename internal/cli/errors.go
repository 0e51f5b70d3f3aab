package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waggleq/waggle/driver"
)

// Exit codes that no error of a store has; the others are in [driver.ErrorClasses].
const (
	exitOK          = 0
	exitFailed      = 1
	exitPartly      = 7
	exitInterrupted = 130
	exitTerminated  = 143
	exitBrokenPipe  = 141 // what a shell shows for a program that SIGPIPE ended
)

// codedError is an error with its own exit code. A nil err has been told already.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// failf is an error of the command itself, exit code 1.
func failf(format string, args ...any) error {
	return &codedError{code: exitFailed, err: fmt.Errorf(format, args...)}
}

// partlyf says that some of the work was done and some was not.
func partlyf(format string, args ...any) error {
	return &codedError{code: exitPartly, err: fmt.Errorf(format, args...)}
}

// finish tells the user of an error and returns the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	silent := code == exitOK || code == exitBrokenPipe || code == exitInterrupted || code == exitTerminated
	if coded, ok := errors.AsType[*codedError](err); ok && coded.err == nil {
		silent = true
	}
	if !silent {
		a.say("waggle: %s", oneLine(err))
	}
	return code
}

func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitBrokenPipe
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)) {
		switch context.Cause(ctx) {
		case errInterrupted:
			return exitInterrupted
		case errTerminated:
			return exitTerminated
		}
	}
	return driver.ClassOf(err).Exit
}

// oneLine is the text of an error without line breaks and control characters.
func oneLine(err error) string {
	return strings.TrimPrefix(visible(strings.ReplaceAll(err.Error(), "\n", "; ")), "waggle: ")
}

// usageError makes an error that came before the command began one of usage.
func usageError(err error) error {
	if driver.ClassOf(err).Code != "internal" {
		return err
	}
	return driver.Errorf(driver.ErrInvalid, "%w", err)
}

// flagError puts what pflag found into a sentence.
func flagError(cmd *cobra.Command, err error) error {
	help := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return driver.Invalidf("--%s %q: %w", bad.GetFlag().Name, driver.CutText(bad.GetValue(), 64), bad.Unwrap())
	}
	if bad, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return driver.Invalidf("%s needs a value: %s", flagName(bad.GetSpecifiedName()), help)
	}
	if bad, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if near := nearFlag(cmd, bad.GetSpecifiedName()); near != "" {
			return driver.Invalidf("there is no flag %s, did you mean --%s? See `%s --help`", flagName(bad.GetSpecifiedName()), near, cmd.CommandPath())
		}
		return driver.Invalidf("there is no flag %s: %s", flagName(bad.GetSpecifiedName()), help)
	}
	return driver.Invalidf("%w: %s", err, help)
}

func flagName(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// nearFlag is the flag of a command whose name is nearest to a mistyped one, "" if none is near.
func nearFlag(cmd *cobra.Command, typed string) string {
	if len(typed) < 2 {
		return ""
	}
	best, least := "", 1+len(typed)/3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch d := editDistance(typed, f.Name); {
		case f.Hidden:
		case d <= least:
			best, least = f.Name, d-1
		case best == "" && strings.HasPrefix(f.Name, typed):
			best = f.Name
		}
	})
	return best
}

// editDistance counts the letters to insert, delete or change to make b of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// noCommand refuses arguments of a command that only has commands below it.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 1
	if len(args[0]) > 3 {
		cmd.SuggestionsMinimumDistance = 2 // two letters swapped
	}
	near := cmd.SuggestionsFor(args[0])
	if len(args[0]) <= 4 { // two other letters of four make another word
		near = slices.DeleteFunc(near, func(n string) bool { return n[0] != args[0][0] && editDistance(n, args[0]) > 1 })
	}
	if len(near) > 0 {
		return driver.Invalidf("there is no command %q, did you mean `%s %s`?", driver.CutText(args[0], 64), cmd.CommandPath(), near[0])
	}
	return driver.Invalidf("there is no command %q: see `%s --help`", driver.CutText(args[0], 64), cmd.CommandPath())
}

// helpArgs refuses words that name no command.
func helpArgs(cmd *cobra.Command, args []string) error {
	found, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) == 0 {
		return err
	}
	return noCommand(found, rest)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if flag := flagBefore(cmd, args[0]); flag != "" {
			return driver.Invalidf("write --%s=%s, with an equals sign: --%s also stands alone", flag, args[0], flag)
		}
		return driver.Invalidf("`%s` takes no arguments, got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// flagBefore returns the flag that a word seems to be the value of: one that was given, and has a value without it.
func flagBefore(cmd *cobra.Command, word string) string {
	name := ""
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.NoOptDefVal != "" && f.Value.Type() != "bool" && f.Value.String() == f.NoOptDefVal {
			if _, err := parseDuration(word); err == nil {
				name = f.Name
			}
		}
	})
	return name
}

// oneArg wants exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return driver.Invalidf("`%s` takes one %s, got %d arguments: see `%s --help`", cmd.CommandPath(), what, len(args), cmd.CommandPath())
		}
		return nil
	}
}
