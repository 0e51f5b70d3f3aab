//go:build unix

// Package stagetest runs a program of several processes in a test, and sees to it that nothing of it is left.
package stagetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// AsProgram in the environment makes a test binary the program: see [Main].
const AsProgram = "WAGGLE_TEST_AS_PROGRAM"

// Main is for TestMain: it runs main in the processes of the program, which have AsProgram or the variable of their role in
// their environment, and else the tests.
func Main(m *testing.M, roleVariable string, main func()) {
	if os.Getenv(AsProgram) != "" || os.Getenv(roleVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// Program is the program as a process of its own, whose temporary files are in a directory of their own.
type Program struct {
	Cmd *exec.Cmd
	Err bytes.Buffer // what it says on standard error, unless the test takes that over

	t   *testing.T
	tmp string
}

// Prepare returns the program with arguments. It is not started.
func Prepare(t *testing.T, args ...string) *Program {
	t.Helper()
	p := &Program{t: t, tmp: t.TempDir(), Cmd: exec.Command(os.Args[0], args...)}
	p.Cmd.Env = append(os.Environ(), AsProgram+"=1", "TMPDIR="+p.tmp)
	p.Cmd.Stderr = &p.Err
	return p
}

// Gone waits until no process of the program is left and no file of it.
func (p *Program) Gone() {
	p.t.Helper()
	for p.t.Context().Err() == nil {
		left, err := filepath.Glob(filepath.Join(p.tmp, "*"))
		if err != nil {
			p.t.Fatal(err)
		}
		if len(left) == 0 && len(p.Processes()) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // they are on their way
	}
}

// Processes are the ids of those that have the program's directory in their environment, or work in it.
func (p *Program) Processes() (all []string) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join(dir, "environ")) // an error: it has ended, or is not ours
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if bytes.Contains(environ, []byte(p.tmp)) || strings.HasPrefix(cwd, p.tmp) {
			all = append(all, filepath.Base(dir))
		}
	}
	return all
}
