package robustness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// family is a script that starts a child in its own group, one in a session of its own, and a daemon: a process that
// nothing in its environment, its group, its session or its parent ties to the script. Each writes down its number.
const family = `cd %s
echo $WAGGLE_TASK_TOKEN >> tokens
[ $WAGGLE_TASK_CRASHES = 0 ] || exit 0
pid() { echo 'echo $$ >> pids; trap "" TERM HUP INT; while :; do sleep 1; done'; }
sh -c "$(pid)" &
setsid sh -c "$(pid)" &
(setsid sh -c "env -i PATH=$PATH sh -c '$(pid)' >/dev/null 2>&1 </dev/null &" &)
eval "$(pid)"`

const familySize = 4

// TestWorkTree kills `waggle work`, its keeper, or stops it, while its command has children in groups and sessions of
// their own: none of them goes on, and the second run has another token.
func TestWorkTree(t *testing.T) {
	t.Parallel()
	path := buildVersion(t, "this", moduleRoot, nil).path
	for name, tt := range map[string]struct {
		end     func(w *workProcess)
		crashes int
	}{
		"SIGKILL": {func(w *workProcess) { w.signal(syscall.SIGKILL); w.end() }, 1},
		"SIGQUIT": {func(w *workProcess) { w.signal(syscall.SIGQUIT); w.end() }, 1},
		"SIGTERM": {func(w *workProcess) { w.signal(syscall.SIGTERM); w.end() }, 0},
		"SIGHUP":  {func(w *workProcess) { w.signal(syscall.SIGHUP); w.end() }, 0},
		"keeper killed": {func(w *workProcess) {
			for _, pid := range childrenOf(w.t, w.cmd.Process.Pid) {
				must(w.t, syscall.Kill(pid, syscall.SIGKILL))
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir := newSite(t, engines["sqlite"]), t.TempDir()
			w := s.startWork(path, nil, "--drain", "0s", "--grace", "100ms")
			id := s.script(fmt.Sprintf(family, dir), &waggle.EnqueueOptions{MaxAttempts: 1})
			var pids []int
			s.eventually("the family to be there", func(context.Context) bool {
				pids = numbersIn(t, filepath.Join(dir, "pids"))
				return len(pids) == familySize
			})
			tt.end(w)
			s.eventually("all of the family to be gone", func(context.Context) bool {
				for _, pid := range pids {
					if runs(pid) {
						return false
					}
				}
				return true
			})
			if tt.crashes == 0 {
				return
			}
			s.startWork(path, nil)
			s.awaitState(id, driver.Completed)
			if tokens := numbersIn(t, filepath.Join(dir, "tokens")); len(tokens) != 2 || tokens[0] >= tokens[1] {
				t.Errorf("tokens %v, want two, the second greater", tokens)
			}
		})
	}
}

// numbersIn returns the numbers in a file, a line each; none if there is no file yet.
func numbersIn(t testing.TB, file string) []int {
	t.Helper()
	text, _ := os.ReadFile(file)
	var list []int
	for _, word := range strings.Fields(string(text)) {
		n, err := strconv.Atoi(word)
		must(t, err)
		list = append(list, n)
	}
	return list
}

// runs reports whether a process is there and has not ended.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return string(fields[0]) != "Z"
}

func childrenOf(t testing.TB, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	var list []int
	for _, f := range files {
		list = append(list, numbersIn(t, f)...)
	}
	if len(list) == 0 {
		t.Fatalf("process %d has no children", pid)
	}
	return list
}
