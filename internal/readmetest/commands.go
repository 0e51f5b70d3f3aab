package readmetest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// shell are the names of blocks that hold commands.
var shell = []string{"bash", "console", "sh", "shell"}

var (
	separator  = regexp.MustCompile(`\|\||&&|[|;&]`)
	assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	target     = regexp.MustCompile(`(?m)^([a-z][a-z-]*):(?:[^=]|$)`)
	word       = regexp.MustCompile(`^[a-z][a-z-]*$`)
	flagName   = regexp.MustCompile(`^--[a-z][a-z-]*`)
)

// MakeTargets lists the targets of a Makefile.
func MakeTargets(makefile string) []string {
	var targets []string
	for _, m := range target.FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// CheckCommands returns one sentence for each command in the shell blocks of
// the document that names a target make does not have, or a subcommand or flag
// that the help of waggle does not show. Help returns what "waggle WORDS…
// --help" prints.
func CheckCommands(d *Document, targets []string, help func(words []string) (string, error)) []string {
	var faults []string
	for _, b := range d.Blocks {
		if !slices.Contains(shell, b.Lang) {
			continue
		}
		for n, args := range commands(b.Text) {
			var err error
			switch args[0] {
			case "make":
				err = checkMake(args[1:], targets)
			case "waggle":
				err = checkWaggle(args[1:], help)
			}
			if err != nil {
				faults = append(faults, fmt.Sprintf("%s:%d: %v", d.Path, b.Line+n, err))
			}
		}
	}
	return faults
}

// commands yields the words of each command with the number of its line.
func commands(text string) func(yield func(int, []string) bool) {
	return func(yield func(int, []string) bool) {
		for n, line := range strings.Split(text, "\n") {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if line == "" || line[0] == '#' {
				continue
			}
			for _, command := range separator.Split(line, -1) {
				if args := normalize(strings.Fields(command)); len(args) > 0 && !yield(n, args) {
					return
				}
			}
		}
	}
}

// normalize drops assignments before a command and a comment behind it, and
// writes the ways to start the command from a clone as "waggle".
func normalize(args []string) []string {
	for len(args) > 0 && assignment.MatchString(args[0]) {
		args = args[1:]
	}
	if i := slices.IndexFunc(args, func(a string) bool { return a[0] == '#' }); i >= 0 {
		args = args[:i]
	}
	if len(args) > 2 && args[0] == "go" && args[1] == "run" && strings.Contains(args[2], "cmd/waggle") {
		return append([]string{"waggle"}, args[3:]...)
	}
	if len(args) > 0 && strings.HasSuffix(args[0], "bin/waggle") {
		return append([]string{"waggle"}, args[1:]...)
	}
	return args
}

func checkMake(args, targets []string) error {
	for _, a := range args {
		if word.MatchString(a) && !slices.Contains(targets, a) {
			return fmt.Errorf("the Makefile has no target %s", a)
		}
	}
	return nil
}

// checkWaggle asks the command itself: the usage line of its help names the
// subcommand it understood, and "[command]" stands there where one is missing.
func checkWaggle(args []string, help func([]string) (string, error)) error {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	words := args
	if i := slices.IndexFunc(args, func(a string) bool { return !word.MatchString(a) }); i >= 0 {
		words = args[:i]
	}
	text, err := help(words)
	if err != nil {
		return fmt.Errorf("waggle %s --help: %w", strings.Join(words, " "), err)
	}
	if len(words) > 0 {
		understood := usage(text)
		if len(understood) < len(words) && slices.Equal(understood, words[:len(understood)]) && strings.Contains(text, "[command]") {
			return fmt.Errorf("waggle has no command %s", strings.Join(words, " "))
		}
	}
	for _, a := range args {
		if name := flagName.FindString(a); name != "" && !hasFlag(text, name) {
			return fmt.Errorf("waggle %s has no flag %s", strings.Join(words, " "), name)
		}
	}
	return nil
}

// usage returns the subcommand that the longest usage line of a help text names.
func usage(help string) []string {
	var longest []string
	for line := range strings.Lines(help) {
		args := strings.Fields(line)
		if len(args) == 0 || args[0] != "waggle" {
			continue
		}
		n := 1
		for n < len(args) && word.MatchString(args[n]) {
			n++
		}
		if n-1 > len(longest) {
			longest = args[1:n]
		}
	}
	return longest
}

func hasFlag(help, name string) bool {
	return regexp.MustCompile(regexp.QuoteMeta(name) + `(?:[^a-z-]|$)`).MatchString(help)
}
