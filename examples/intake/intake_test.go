//go:build unix

// Package intake_test runs the example: a producer in Python, three worker processes, one of them killed.
package intake_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/cli"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// asWaggle in the environment makes the test binary the waggle command.
const asWaggle = "INTAKE_TEST_AS_WAGGLE"

func TestMain(m *testing.M) {
	if os.Getenv(asWaggle) != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// handler is what the workers run: the first one that gets the payment tells its worker's pid and then does not end.
const handler = `#!/bin/sh
if [ "$1" = "Send payment notification" ] && mkdir "$DIR/first" 2>/dev/null; then
	# On Linux a process between the worker and its commands ends them when the worker is killed: the worker is its parent.
	keeper=$PPID worker=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$PPID/status" 2>/dev/null || true)
	echo "$keeper ${worker:-0}" >"$DIR/pid"
	read -r _ <"$DIR/never"
fi
echo "done: $1"
`

func TestProducerInPython(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import redis").CombinedOutput(); err != nil {
		t.Fatalf("%s has no module redis: apt-get install python3-redis\n%v %s", python, err, out)
	}
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, AOF: redisserver.AOFAlways})
		dir := t.TempDir()
		write(t, filepath.Join(dir, "handler"), handler)
		never := fifo(t, filepath.Join(dir, "never"))
		pids := fifo(t, filepath.Join(dir, "pid"))

		workers := map[int]*exec.Cmd{}
		for range 2 {
			w := work(t, server.URL(), dir)
			if err := w.Start(); err != nil {
				t.Fatal(err)
			}
			workers[w.Process.Pid] = w
		}
		_, port, err := net.SplitHostPort(server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		output(t, exec.CommandContext(t.Context(), python, "producer.py", port))

		var victim *exec.Cmd
		for _, pid := range readPIDs(t, pids) {
			if w := workers[pid]; w != nil {
				victim = w
			}
		}
		if victim == nil {
			t.Fatal("neither the handler's parent nor that process's parent is a worker")
		}
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = victim.Wait() // it was killed
		delete(workers, victim.Process.Pid)
		if err := never.Close(); err != nil { // what the dead worker ran may end now
			t.Error(err)
		}
		output(t, work(t, server.URL(), dir, "--until-empty"))
		for _, w := range workers {
			if err := w.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			_ = w.Wait() // its exit code tells of the signal
		}
		checkTasks(t, server.URL())
	})
}

// checkTasks wants each text done once, and the payment to have cost a worker but no attempt.
func checkTasks(t *testing.T, store string) {
	t.Helper()
	list := waggleCommand(t, store, "task", "list", "-o", "json")
	var tasks []waggle.TaskInfo
	if err := json.Unmarshal([]byte(output(t, list)), &tasks); err != nil {
		t.Fatal(err)
	}
	crashes := map[string]int{}
	for _, task := range tasks {
		result, err := waggle.Result[string](&task)
		if err != nil || task.State != driver.Completed || task.Attempt != 1 || task.Type != "note" {
			t.Errorf("task %s of type %s is %s after attempt %d: %v", task.ID, task.Type, task.State, task.Attempt, err)
		}
		crashes[result] = task.Crashes
	}
	want := map[string]int{"done: Calculate user balance": 0, "done: Send payment notification": 1, "done: Update inventory": 0}
	if diff := cmp.Diff(want, crashes); diff != "" || len(tasks) != len(want) {
		t.Errorf("%d tasks, by result how often their worker died (-want +got):\n%s", len(tasks), diff)
	}
}

func waggleCommand(t *testing.T, store string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asWaggle+"=1", "WAGGLE_STORE="+store)
	return cmd
}

// work is a worker that takes the list in.
func work(t *testing.T, store, dir string, flags ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"work", "--intake", "tasks=note", "--lease", "1s", "--slots", "1"}, flags...)
	cmd := waggleCommand(t, store, append(args, "--", filepath.Join(dir, "handler"), "{}")...)
	cmd.Env = append(cmd.Env, "DIR="+dir)
	return cmd
}

// output runs a command and returns what it printed.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fifo makes a named pipe and opens both its ends, so that nobody waits to open it and nobody sees its end.
func fifo(t *testing.T, name string) *os.File {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func readPIDs(t *testing.T, f *os.File) []int {
	t.Helper()
	line := make([]byte, 32)
	n, err := f.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for word := range strings.FieldsSeq(string(line[:n])) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
