package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waggleq/waggle/driver"
)

//go:generate go test . -run TestPageIsUpToDate -update

// TestPageIsUpToDate compares docs/cli.md with the commands themselves.
func TestPageIsUpToDate(t *testing.T) {
	t.Parallel()
	const path = "../../docs/cli.md"
	want := page()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/cli.md is not what the commands say (make generate writes it), want -, got +:\n%s", diff)
	}
}

// TestPageTellsEveryExitCode holds the page's table of exit codes to the errors of a store.
func TestPageTellsEveryExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range driver.ErrorClasses {
		if !slices.ContainsFunc(exitCodes, func(e exitCodeText) bool { return e.code == c.Exit }) {
			t.Errorf("the page does not tell what exit code %d means", c.Exit)
		}
	}
}

type exitCodeText struct {
	code int
	text string
}

var exitCodes = []exitCodeText{
	{exitOK, "done"},
	{exitFailed, "failed: the task that was waited for did not complete, the store is full, damaged or closed, a level of durability was not reached, or you answered no"},
	{2, "usage: something in the command, the input or the environment is wrong, or this store does not offer it; nothing was changed"},
	{3, "there is no such task or queue"},
	{4, "conflict: the unique key is taken, the queue is draining, or the task's state does not allow it"},
	{5, "the queue is full: its bound is reached"},
	{6, "the store can't be reached"},
	{exitPartly, "partly done: the message says how much"},
	{exitInterrupted, "interrupted with Ctrl-C"},
	{exitBrokenPipe, "whoever read standard output is gone"},
	{exitTerminated, "ended by SIGTERM; `waggle work` stops in order and ends with 0"},
}

const pageHead = `<!-- Made from the commands by make generate; don't edit it. -->

# The command line

Data goes to standard output, words go to standard error. What a command needs to know it checks before it opens the store:
refused input changes nothing, and prints nothing but one sentence on standard error.

## Store

Every command takes ` + "`--store URL`" + `:

| URL | store |
|---|---|
| none | ` + "`waggle/waggle.db`" + ` in ` + "`$XDG_STATE_HOME`" + `, or in ` + "`~/.local/state`" + ` if that is not set |
| ` + "`sqlite:PATH`" + `, ` + "`sqlite:///PATH`" + ` | this SQLite file, in a directory that is there |
| ` + "`PATH`" + ` | the same, if it has a slash or ends in .db, .sqlite or .sqlite3 |
| ` + "`redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`" + ` | a Redis or Valkey server; with TLS ` + "`rediss:`" + ` |
| ` + "`redis-sentinel://HOST,HOST/NAME`" + ` | the master that Sentinel knows by this name; with TLS ` + "`rediss-sentinel:`" + ` |
| ` + "`redis+cluster://HOST,HOST`" + ` | a Cluster; with TLS ` + "`rediss+cluster:`" + ` |

A SQLite file that is not there is made by the commands that add tasks or run workers, and by no other.

No message shows a password. To keep it out of the list of processes, put the URL into ` + "`WAGGLE_STORE`" + `, or the password into
a file that ` + "`?password_file=FILE`" + ` names. A Redis URL takes ` + "`?replicas=N`, `?durability=LEVEL` and `?timeout=DURATION`" + ` too: see
[redis.md](redis.md).

## Output

` + "`-o table`" + ` is for people, ` + "`-o json`" + ` is one JSON value, ` + "`-o jsonl`" + ` is one JSON value a line.

## Environment

Every flag can be set in the environment: its name in capitals, with ` + "`_`" + ` for ` + "`-`" + `, after ` + "`WAGGLE_`" + `. So ` + "`--store`" + ` is
` + "`WAGGLE_STORE`" + ` and ` + "`--max-attempts`" + ` is ` + "`WAGGLE_MAX_ATTEMPTS`" + `. A flag on the command line takes precedence; an empty variable
counts as unset. A flag that may be repeated takes a list with commas; ` + "`WAGGLE_HEADER`" + ` one header a line.

## Exit codes

| code | meaning |
|---|---|
`

// page returns docs/cli.md.
func page() string {
	root := (&app{env: func(string) string { return "" }}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	b.WriteString(pageHead)
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.text)
	}
	b.WriteString("\n## Commands\n\n| command | |\n|---|---|\n")
	list := commandsBelow(root)
	for _, c := range list {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	for _, c := range list {
		describe(&b, c)
	}
	b.WriteString("\n### Flags of every command\n\n")
	flagTable(&b, root.PersistentFlags())
	return b.String()
}

// commandsBelow lists the commands that do something, in the order of help. Of the shells that completion knows it has
// the command above them only.
func commandsBelow(c *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, sub := range c.Commands() {
		switch {
		case sub.Hidden || sub.Name() == "help":
		case sub.HasAvailableSubCommands() && sub.Name() != "completion":
			list = append(list, commandsBelow(sub)...)
		default:
			list = append(list, sub)
		}
	}
	return list
}

func describe(b *strings.Builder, c *cobra.Command) {
	usage := c.UseLine()
	if c.Name() == "completion" {
		usage = "waggle completion bash|zsh|fish|powershell"
	}
	fmt.Fprintf(b, "\n### %s\n\n```text\n%s\n```\n\n", c.CommandPath(), usage)
	if c.Long == "" || c.Name() == "completion" {
		b.WriteString(c.Short + ".\n")
	} else {
		b.WriteString(escape(c.Long) + "\n")
	}
	if c.LocalNonPersistentFlags().HasAvailableFlags() {
		b.WriteString("\n")
		flagTable(b, c.LocalNonPersistentFlags())
	}
	if c.Example != "" {
		b.WriteString("\n```sh\n")
		for line := range strings.Lines(c.Example) {
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
		b.WriteString("```\n")
	}
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	var rows strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&rows, "| `%s` | %s |\n", strings.ReplaceAll(name, "|", `\|`), escape(usage))
	})
	if rows.Len() > 0 {
		b.WriteString("| flag | |\n|---|---|\n" + rows.String())
	}
}

// escape keeps Markdown from taking the text of a help for its own signs.
func escape(s string) string {
	return strings.NewReplacer("{}", "`{}`", "<", `\<`, "|", `\|`).Replace(s)
}
