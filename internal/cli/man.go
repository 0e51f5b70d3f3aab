package cli

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/waggleq/waggle/driver"
)

// manCommand writes manual pages.
func (a *app) manCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man [COMMAND...]", Short: "Write manual pages", GroupID: "about",
		Long: "Writes the manual page of waggle, or of one of its commands, to standard output. With --dir it writes a page for each\n" +
			"command into a directory that exists.",
		Example: "  waggle man | man -l -\n" +
			"  waggle man queue limit | man -l -\n" +
			"  waggle man --dir ~/.local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error { return a.writeManual(cmd.Root(), args, dir) },
	}
	cmd.Flags().Var(&given{&dir}, "dir", "write a page for each command into this `DIRECTORY`")
	return cmd
}

func (a *app) writeManual(root *cobra.Command, path []string, dir string) error {
	root.DisableAutoGenTag = true
	section := doc.GenManHeader{Section: "1", Manual: "Waggle", Source: "waggle " + version(), Date: new(time.Now())}
	if dir != "" {
		if len(path) > 0 {
			return driver.Invalidf("--dir writes the pages of all commands: leave out %q", strings.Join(path, " "))
		}
		err := doc.GenManTree(root, &section, dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return driver.Invalidf("--dir %s: %w", dir, errors.Unwrap(err))
		}
		return err
	}
	cmd, rest, err := root.Find(path)
	if err != nil || len(rest) > 0 {
		return noCommand(cmd, rest)
	}
	return doc.GenMan(cmd, &section, a.out)
}

// given is a text flag that must not be empty.
type given struct{ text *string }

func (g *given) String() string { return *g.text }
func (g *given) Type() string   { return "string" }

// Set implements pflag.Value.
func (g *given) Set(v string) error {
	if strings.TrimSpace(v) == "" {
		return driver.Invalidf("--dir is empty")
	}
	*g.text = v
	return nil
}
