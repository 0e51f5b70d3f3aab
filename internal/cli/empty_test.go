package cli

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waggleq/waggle/driver"
)

// TestEmptyFlags gives every flag of every command an empty value, and a time or number that stands for none. Nothing of it
// may mean "all" or "the default": it is refused with exit code 2, before a store is made.
func TestEmptyFlags(t *testing.T) {
	t.Parallel()
	usage := driver.ClassOf(driver.ErrInvalid).Exit
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		check := func(f *pflag.Flag) {
			values := []string{"", " "}
			if f.Value.Type() == "TIME" {
				values = append(values, "0001-01-01T00:00:00Z")
			}
			for _, v := range values {
				var out, err bytes.Buffer
				a := &app{in: strings.NewReader(""), out: &out, err: &err, env: func(string) string { return "" }}
				args := append(strings.Fields(cmd.CommandPath())[1:], "--"+f.Name+"="+v)
				if f.Name != "store" {
					args = append(args, "--store", "sqlite:"+filepath.Join(t.TempDir(), "none", "q.db"))
				}
				if code := a.run(t.Context(), append(args, words(cmd)...)); code != usage || !strings.Contains(err.String(), f.Name) {
					t.Errorf("%s --%s=%q ends with %d and says %q, want it refused", cmd.CommandPath(), f.Name, v, code, err.String())
				}
			}
		}
		if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Name() != "help" && cmd.Name() != "version" && cmd.Parent().Name() != "completion" {
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" {
					check(f)
				}
			})
			cmd.InheritedFlags().VisitAll(check)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&app{env: func(string) string { return "" }}).root())
}

// words are arguments that a command can't do without.
func words(cmd *cobra.Command) []string {
	if cmd.Name() == "work" {
		return []string{"--", "true"}
	}
	var args []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if strings.HasPrefix(word, "[") {
			break
		}
		args = append(args, "some")
	}
	return args
}

// TestLongValuesAreNotEchoed gives flags and commands that are refused a hundred thousand bytes: the sentence stays one that can be read.
func TestLongValuesAreNotEchoed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, args := range [][]string{{"enqueue", "t", "--key", long}, {"enqueue", "t", "--queue", long}, {"enqueue", long}, {"queue", "get", long},
		{"queue", "limit", "q", "--rate", long}, {"queue", "bound", "q", "--max", "1", "--policy", long}, {long}, {"queue", long}, {"task", "get", long}, {"type", "open", long}} {
		var out, err bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &err, env: func(string) string { return "" }}
		code := a.run(t.Context(), append(args, "--store", "sqlite:"+filepath.Join(t.TempDir(), "q.db")))
		if code == 0 || out.Len()+err.Len() == 0 || out.Len()+err.Len() > 1000 {
			t.Errorf("%.20s ends with %d and says %d bytes: %.300s", strings.Join(args, " "), code, out.Len()+err.Len(), err.String())
		}
	}
}
