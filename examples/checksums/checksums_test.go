//go:build unix

// Package checksums_test runs the example with real processes, two of which are killed.
package checksums_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/cli"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/stores"
)

// asWaggle in the environment makes the test binary the waggle command.
const asWaggle = "CHECKSUMS_TEST_AS_WAGGLE"

func TestMain(m *testing.M) {
	if os.Getenv(asWaggle) != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestChecksums kills a worker twice on the way and compares the results with sha256sum run directly.
func TestChecksums(t *testing.T) {
	t.Parallel()
	checksums(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"), 600)
}

// The same on a server, with another URL and nothing else.
func TestChecksumsOnServers(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		checksums(t, redistest.Start(t, &redisserver.Options{Flavour: f}).URL(), 120)
	})
}

func checksums(t *testing.T, store string, wantFiles int) {
	t.Helper()
	files := goFiles(t, wantFiles)
	enqueue := waggleCommand(t, store, "enqueue", "checksum", "--lines")
	enqueue.Stdin = strings.NewReader(strings.Join(files, "\n") + "\n")
	ids := strings.Fields(output(t, enqueue))
	if len(ids) != len(files) {
		t.Fatalf("%d ids for %d files", len(ids), len(files))
	}
	done := countCompleted(t, store)
	for _, enough := range []int{len(files) / 6, len(files) / 3} {
		w := worker(t, store)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		for n := range done {
			if n >= enough {
				break
			}
		}
		killHard(t, w)
	}
	if out, err := worker(t, store).CombinedOutput(); err != nil {
		t.Fatalf("the last worker: %v\n%s", err, out)
	}

	want := strings.Split(strings.TrimSuffix(output(t, exec.Command("sha256sum", files...)), "\n"), "\n")
	slices.Sort(want)
	if diff := cmp.Diff(want, results(t, store)); diff != "" {
		t.Errorf("checksums (-sha256sum +waggle):\n%s", diff)
	}
}

// goFiles returns files of the Go source tree.
func goFiles(t *testing.T, wantFiles int) []string {
	t.Helper()
	root := output(t, exec.Command("go", "env", "GOROOT"))
	var files []string
	err := filepath.WalkDir(filepath.Join(strings.TrimSpace(root), "src"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		if len(files) == wantFiles {
			return fs.SkipAll
		}
		return err
	})
	if err != nil || len(files) < wantFiles {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	return files
}

func waggleCommand(t *testing.T, store string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asWaggle+"=1", "WAGGLE_STORE="+store)
	return cmd
}

func worker(t *testing.T, store string) *exec.Cmd {
	t.Helper()
	return waggleCommand(t, store, "work", "--slots", "4", "--lease", "1s", "--until-empty", "--", "sha256sum", "{}")
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

// countCompleted follows the event feed and sends the number of tasks that have completed, each time it grows.
func countCompleted(t *testing.T, storeURL string) <-chan int {
	t.Helper()
	store, err := stores.Open(t.Context(), storeURL)
	if err != nil {
		t.Fatal(err)
	}
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	counts, ended := make(chan int), make(chan struct{})
	go func() {
		defer close(ended)
		n := 0
		for e, err := range client.Events(ctx, "") {
			if err != nil || e.Kind != driver.EventKind(driver.Completed) {
				continue
			}
			n++
			select {
			case counts <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return counts
}

// killHard kills a worker that has not ended, so that what it held is left to others.
func killHard(t *testing.T, w *exec.Cmd) {
	t.Helper()
	if err := w.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](w.Wait())
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the worker was not killed at work: %v on %s", w.ProcessState, runtime.GOOS)
	}
}

// results returns the sorted results of all tasks, after checking that each was completed once, with no attempt spent
// on the crashes.
func results(t *testing.T, store string) []string {
	t.Helper()
	var all []string
	lines := bufio.NewScanner(strings.NewReader(output(t, waggleCommand(t, store, "task", "list", "-o", "jsonl"))))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var task waggle.TaskInfo
		if err := json.Unmarshal(lines.Bytes(), &task); err != nil {
			t.Fatal(err)
		}
		sum, err := waggle.Result[string](&task)
		runs := map[waggle.Outcome]int{}
		for _, a := range task.Attempts {
			runs[a.Outcome]++
		}
		// One that waited beside a task on probation may have been given back.
		if err != nil || task.Attempt != 1 || runs["complete"] != 1 || runs["crash"] != task.Crashes || runs["retry"] > 0 {
			t.Errorf("task %s is %s after attempt %d, %d crashes, runs %v: %v", task.ID, task.State, task.Attempt, task.Crashes, runs, err)
		}
		all = append(all, sum)
	}
	slices.Sort(all)
	return all
}
