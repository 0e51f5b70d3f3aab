//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/crowd"
	"github.com/waggleq/waggle/examples/chat/system"
	"github.com/waggleq/waggle/examples/chat/wire"
)

// asChat in the environment makes the test binary the program.
const asChat = "WAGGLE_CHAT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asChat) != "" || os.Getenv(wire.RoleVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is the chat as a process of its own, whose temporary files are in a directory of their own.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	tmp string
	err bytes.Buffer
}

func prepare(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, tmp: t.TempDir()}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), asChat+"=1", "TMPDIR="+p.tmp)
	p.cmd.Stderr = &p.err
	return p
}

// start starts the program and returns the addresses of its web servers.
func (p *program) start() (addresses []string) {
	p.t.Helper()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for len(addresses) < 2 && lines.Scan() {
		if _, at, found := strings.Cut(lines.Text(), "http://"); found {
			addresses = append(addresses, "http://"+at)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	if len(addresses) < 2 {
		p.t.Fatalf("the program ended: %v\n%s", p.cmd.Wait(), &p.err)
	}
	return addresses
}

// gone waits until no process of the program is left and no file of it.
func (p *program) gone() {
	p.t.Helper()
	for p.t.Context().Err() == nil {
		left, err := filepath.Glob(filepath.Join(p.tmp, "*"))
		if err != nil {
			p.t.Fatal(err)
		}
		if len(left) == 0 && len(p.processes()) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // they are on their way
	}
}

// processes are those that have the program's directory in their environment, or work in it.
func (p *program) processes() (all []string) {
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

// Ctrl-C ends everything, and so does a program that is killed: no process is left and no file.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]os.Signal{"interrupt": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t)
			p.start()
			if n := len(p.processes()); n < 13 { // itself, six servers, two web servers, three workers, the sweeper
				t.Errorf("there are %d processes", n)
			}
			if err := p.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Wait(); (err == nil) != (signal == os.Interrupt) {
				t.Errorf("it ended with %v\n%s", err, &p.err)
			}
			p.gone()
		})
	}
}

// Without a server program there is one sentence on what to install, and exit code 6.
func TestNoServerProgram(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.cmd.Env = append(p.cmd.Env, "PATH="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir())
	err := p.cmd.Run()
	if p.cmd.ProcessState.ExitCode() != 6 || strings.Count(p.err.String(), "\n") != 1 || !strings.Contains(p.err.String(), "apt-get install redis-server") {
		t.Errorf("%v: %s", err, &p.err)
	}
	p.gone()
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-room", "../x"}, {"-workers", "-1"}, {"-workers", "99"}, {"-port", "70000"}, {"-o", "xml"}, {"dance"}, {"-store", "memory:"}, {"-store", "ftp://x"}} {
		p := prepare(t, args...)
		if err := p.cmd.Run(); p.cmd.ProcessState.ExitCode() != 2 || p.err.Len() == 0 {
			t.Errorf("%v: %v: %s", args, err, &p.err)
		}
		p.gone()
	}
}

// With a store that was there before, the chat starts, kills and freezes nothing of it, and leaves its files alone.
func TestOnSQLite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := prepare(t, "-store", "sqlite:"+filepath.Join(dir, "chat.db"), "-o", "json")
	var figures bytes.Buffer
	p.cmd.Stdout = &figures
	p.cmd.Stderr = nil
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var at []string
	lines := bufio.NewScanner(stderr)
	for len(at) < 2 && lines.Scan() {
		if _, a, found := strings.Cut(lines.Text(), "http://"); found {
			at = append(at, "http://"+a)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	h := check.NewHistory()
	c := crowd.Gather(at, "lobby", 2, h)
	took, err := c.OneByOne(t.Context(), time.Second, 200)
	c.Leave()
	if err != nil || len(took) == 0 {
		t.Errorf("%d messages: %v", len(took), err)
	}
	if r := h.Check(); !r.OK() {
		t.Errorf("%+v", r)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	p.gone()
	var f system.Figures
	if err := json.Unmarshal(figures.Bytes(), &f); err != nil || f.Messages < int64(len(took)) || f.Discarded != 0 {
		t.Errorf("%v: %s", err, &figures)
	}
	if _, err := os.Stat(filepath.Join(dir, "chat.db")); err != nil {
		t.Error(err)
	}
}

// TestSoakChat has a crowd write and read while nodes are killed and frozen at random, for as long as WAGGLE_SOAK says.
func TestSoakChat(t *testing.T) {
	length := 12 * time.Second
	if text := os.Getenv("WAGGLE_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		length = max(d, length)
	} else if testing.Short() {
		length = 8 * time.Second
	}
	s, err := system.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	h := check.NewHistory()
	c := crowd.Gather(s.Addresses(), s.Room(), 4, h)
	defer c.Leave()
	load, stop := context.WithCancel(t.Context())
	defer stop()
	loaded := make(chan error, 1)
	go func() {
		_, err := c.Load(load, length+time.Hour, 20, 300)
		loaded <- err
	}()
	chaos := system.NewChaos(s, c.LastSeen, func(text string) { t.Log(text) })
	if _, err := chaos.FellMaster(t.Context(), system.Kill); err != nil {
		t.Error(err)
	}
	if err := chaos.Break(t.Context(), time.Now().Add(length), func(system.Fault) {}); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-loaded; err != nil {
		t.Error(err)
	}
	quiet, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.AwaitAll(quiet); err != nil {
		t.Error(err)
	}
	r := h.Check()
	t.Logf("%d messages, %d delivered, %d faults", r.Messages, r.Delivered, s.Figures().Faults)
	if !r.OK() || r.Messages == 0 {
		t.Errorf("%+v", r)
	}
}
