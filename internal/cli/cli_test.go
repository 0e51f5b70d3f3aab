package cli

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"waggle": func() { os.Exit(Main(os.Args[1:])) },
	})
}

var update = flag.Bool("update", false, "write what the commands print into the scripts")

// TestScripts runs the conversations in testdata/script, each with a state directory of its own.
//
//	exits CODE COMMAND...            the command ends with this exit code
//	refused CODE REGEXP COMMAND...   … and prints nothing on standard output, and one sentence on standard error
//	json EXPRESSION WANT             a value of the JSON on standard output: a path of keys and indices, or len for its length
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "refused": refused, "json": jsonValue,
		},
	})
}

// run runs a command and checks its exit code.
func run(ts *testscript.TestScript, want string, args []string) {
	err := ts.Exec(args[0], args[1:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s\nstderr: %s", code, want, ts.ReadFile("stderr"))
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	run(ts, args[0], args[1:])
}

func refused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: refused CODE REGEXP COMMAND...")
	}
	run(ts, args[0], args[2:])
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("a refused command printed %q", out)
	}
	sentence := ts.ReadFile("stderr")
	if !strings.HasPrefix(sentence, "waggle: ") || strings.Count(sentence, "\n") != 1 || strings.Contains(sentence, "Usage:") {
		ts.Fatalf("not one sentence of waggle: %q", sentence)
	}
	if !regexp.MustCompile(args[1]).MatchString(sentence) {
		ts.Fatalf("it says %q, which does not match %s", sentence, args[1])
	}
}

func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: json EXPRESSION WANT")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for key := range strings.SplitSeq(args[0], ".") {
		switch x := v.(type) {
		case map[string]any:
			if key == "len" {
				v = float64(len(x))
				continue
			}
			value, ok := x[key]
			if !ok {
				ts.Fatalf("%s: there is no key %q", args[0], key)
			}
			v = value
		case []any:
			if key == "len" {
				v = float64(len(x))
				continue
			}
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %q in a list of %d", args[0], key, len(x))
			}
			v = x[i]
		default:
			if key != "" {
				ts.Fatalf("%s: %q in %v", args[0], key, v)
			}
		}
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	if s, ok := v.(string); ok {
		got = []byte(s)
	}
	if string(got) != args[1] {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}
