//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/crowd"
	"github.com/waggleq/waggle/examples/chat/system"
	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage/stagetest"
)

func TestMain(m *testing.M) { stagetest.Main(m, wire.RoleVariable, main) }

// start starts the program and returns the addresses of its web servers.
func start(t *testing.T, p *stagetest.Program) (addresses []string) {
	t.Helper()
	stdout, err := p.Cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for len(addresses) < 2 && lines.Scan() {
		if _, at, found := strings.Cut(lines.Text(), "http://"); found {
			addresses = append(addresses, "http://"+at)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	if len(addresses) < 2 {
		t.Fatalf("the program ended: %v\n%s", p.Cmd.Wait(), &p.Err)
	}
	return addresses
}

// Ctrl-C ends everything, and so does a program that is killed: no process is left and no file.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]os.Signal{"interrupt": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stagetest.Prepare(t)
			start(t, p)
			if n := len(p.Processes()); n < 13 { // itself, six servers, two web servers, three workers, the sweeper
				t.Errorf("there are %d processes", n)
			}
			if err := p.Cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := p.Cmd.Wait(); (err == nil) != (signal == os.Interrupt) {
				t.Errorf("it ended with %v\n%s", err, &p.Err)
			}
			p.Gone()
		})
	}
}

// Without a server program there is one sentence on what to install, and exit code 6.
func TestNoServerProgram(t *testing.T) {
	t.Parallel()
	p := stagetest.Prepare(t)
	p.Cmd.Env = append(p.Cmd.Env, "PATH="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir())
	err := p.Cmd.Run()
	if p.Cmd.ProcessState.ExitCode() != 6 || strings.Count(p.Err.String(), "\n") != 1 || !strings.Contains(p.Err.String(), "apt-get install redis-server") {
		t.Errorf("%v: %s", err, &p.Err)
	}
	p.Gone()
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-room", "../x"}, {"-workers", "-1"}, {"-workers", "99"}, {"-port", "70000"}, {"-o", "xml"}, {"dance"}, {"-store", "memory:"}, {"-store", "ftp://x"}} {
		p := stagetest.Prepare(t, args...)
		if err := p.Cmd.Run(); p.Cmd.ProcessState.ExitCode() != 2 || p.Err.Len() == 0 {
			t.Errorf("%v: %v: %s", args, err, &p.Err)
		}
		p.Gone()
	}
}

// With a store that was there before, the chat starts, kills and freezes nothing of it, and leaves its files alone.
func TestOnSQLite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := stagetest.Prepare(t, "-store", "sqlite:"+filepath.Join(dir, "chat.db"), "-o", "json")
	var figures bytes.Buffer
	p.Cmd.Stdout = &figures
	p.Cmd.Stderr = nil
	stderr, err := p.Cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
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
	if err := p.Cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Wait(); err != nil {
		t.Error(err)
	}
	p.Gone()
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
