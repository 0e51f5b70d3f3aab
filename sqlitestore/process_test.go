package sqlitestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// process is a re-executed test binary in a role.
type process struct {
	*exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	t     testing.TB
}

// child starts a process in a role. It is killed at the end of the test if it still runs.
func child(t testing.TB, role string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "WAGGLE_TEST_ROLE="+role)
	cmd.Stderr = os.Stderr
	p := &process{Cmd: cmd, t: t}
	p.stdin, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	p.out = bufio.NewReader(out)
	must(t, cmd.Start())
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait() // it was killed
		}
	})
	return p
}

// line returns the next line that the process writes.
func (p *process) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the process ended: %v", err)
	}
	return strings.TrimSpace(line)
}

func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until it arrives
}

func runChild(role string, args []string) {
	roles := map[string]func([]string){"migrate": childMigrate, "enqueue": childEnqueue, "work": childWork, "await": childAwait, "die": childDie, "crash": childCrash, "serve": childServe, "meet": childMeet}
	roles[role](args)
}

func childOpen(path string) *Store {
	s, err := Open(context.Background(), path, nil)
	if err != nil {
		panic(err)
	}
	return s
}

// childEnqueue enqueues args[2] tasks one by one, with ids that begin with args[1].
func childEnqueue(args []string) {
	s := childOpen(args[0])
	n, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	for i := range n {
		task := &driver.Task{Type: "t", ID: fmt.Sprintf("%s-%d", args[1], i)}
		results, err := s.Enqueue(context.Background(), []*driver.Task{task}, driver.EnqueueOptions{})
		if err != nil || results[0].Err != nil {
			panic(fmt.Sprint(err, results))
		}
		fmt.Println(results[0].ID)
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// childCrash enqueues as childEnqueue does, says "done", and waits to be killed with its store open.
func childCrash(args []string) {
	s := childOpen(args[0])
	n, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	for i := range n {
		task := &driver.Task{Type: "t", ID: fmt.Sprintf("%s-%d", args[1], i)}
		results, err := s.Enqueue(context.Background(), []*driver.Task{task}, driver.EnqueueOptions{})
		if err != nil || results[0].Err != nil {
			panic(fmt.Sprint(err, results))
		}
	}
	fmt.Println("done")
	select {}
}

// childServe enqueues one task for each line that it reads, and answers with its id or the error.
func childServe(args []string) {
	s := childOpen(args[0])
	fmt.Println("open")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		results, err := s.Enqueue(context.Background(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
		if err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(results[0].ID)
		}
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// childWork claims and completes until the queue is empty, and writes the ids of what it has completed.
func childWork(args []string) {
	s, ctx := childOpen(args[0]), context.Background()
	if err := s.Register(ctx, driver.WorkerInfo{ID: args[1]}, time.Minute); err != nil {
		panic(err)
	}
	for {
		res, err := s.Fetch(ctx, driver.FetchRequest{Worker: args[1], Lease: time.Minute, Queues: []string{"default"}, Max: 5})
		if err != nil {
			panic(err)
		}
		if len(res.Claims) == 0 {
			break
		}
		for _, c := range res.Claims {
			errs, err := driver.SettleErrors(s.Settle(ctx, args[1], []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}}))
			if err != nil || errs[0] != nil {
				panic(fmt.Sprint(err, errs))
			}
			fmt.Println(c.ID)
		}
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// childAwait waits for work, and says so before and after.
func childAwait(args []string) {
	s, ctx := childOpen(args[0]), context.Background()
	if err := s.Register(ctx, driver.WorkerInfo{ID: "sleeper"}, time.Minute); err != nil {
		panic(err)
	}
	req := driver.AwaitRequest{Worker: "sleeper", Queues: []string{"default"}, Max: time.Minute}
	if args[1] == "control" {
		res, err := s.Fetch(ctx, driver.FetchRequest{Worker: "sleeper", Lease: time.Minute, Queues: []string{"default"}, Max: 1})
		if err != nil || len(res.Claims) != 1 {
			panic(fmt.Sprint(res, err))
		}
		req.For = driver.ForControl
	}
	fmt.Println("waiting")
	start := time.Now()
	if err := s.Await(ctx, req); err != nil {
		panic(err)
	}
	fmt.Println("woken", time.Now().UnixNano(), time.Since(start) < req.Max)
}

// childDie dies in the middle of a transaction that holds the write lock.
func childDie(args []string) {
	s := childOpen(args[0])
	_ = s.write(context.Background(), func(t *tx) error {
		for i := range 2000 {
			if err := t.stmt("pending_insert").ints(int64(1_000_000+i), 1).exec(); err != nil {
				panic(err)
			}
		}
		killSelf()
		return nil
	})
}

// TestBusyStorm has eight processes write one by one into one file, and four work it off meanwhile and after.
func TestBusyStorm(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 60
	path := dbPath(t)
	s := open(t, path, nil)
	var all []*process
	for i := range writers {
		all = append(all, child(t, "enqueue", path, fmt.Sprintf("w%d", i), fmt.Sprint(each)))
	}
	for _, p := range all {
		out, err := io.ReadAll(p.out)
		must(t, err)
		if err := p.Wait(); err != nil {
			t.Errorf("a writer ended with %v", err)
		}
		if n := strings.Count(string(out), "\n"); n != each {
			t.Errorf("a writer got %d receipts, want %d", n, each)
		}
	}
	if got := counts(t, s)[driver.Available]; got != writers*each {
		t.Errorf("%d tasks are available, want %d", got, writers*each)
	}
	all = nil
	for i := range 4 {
		all = append(all, child(t, "work", path, fmt.Sprintf("worker-%d", i)))
	}
	done := make(map[string]int)
	for _, p := range all {
		out, err := io.ReadAll(p.out)
		must(t, err)
		if err := p.Wait(); err != nil {
			t.Errorf("a worker ended with %v", err)
		}
		for id := range strings.FieldsSeq(string(out)) {
			done[id]++
		}
	}
	for id, n := range done {
		if n != 1 {
			t.Errorf("task %s was completed %d times", id, n)
		}
	}
	if got := counts(t, s)[driver.Completed]; len(done) != writers*each || got != writers*each {
		t.Errorf("%d tasks were done and %d are completed, want %d", len(done), got, writers*each)
	}
}

func TestAnotherProcessWakesAnIdleWorker(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"work", "control"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s := open(t, path, nil)
			if kind == "control" {
				add(t, s, 1, func(_ int, task *driver.Task) { task.ID = "held" })
			}
			p := child(t, "await", path, kind)
			if got := p.line(); got != "waiting" {
				t.Fatalf("the process says %q", got)
			}
			if kind == "control" {
				_, err := s.Apply(t.Context(), driver.Change{Op: driver.OpCancel, IDs: []string{"held"}})
				must(t, err)
			} else {
				add(t, s, 1, nil)
			}
			if got := p.line(); !strings.HasPrefix(got, "woken") || !strings.HasSuffix(got, "true") {
				t.Errorf("the process says %q", got)
			}
			must(t, p.Wait())
		})
	}
}

// TestAProcessKilledInATransactionLeavesNothing also finds stale -wal and -shm files.
func TestAProcessKilledInATransactionLeavesNothing(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	p := child(t, "enqueue", path, "before", "20")
	_, err := io.Copy(io.Discard, p.out)
	must(t, err)
	must(t, p.Wait())
	for range 3 {
		p := child(t, "die", path)
		if exit, ok := errors.AsType[*exec.ExitError](p.Wait()); !ok || exit.Success() {
			t.Fatalf("the process was not killed: %v", exit)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			if _, err := os.Stat(path + suffix); err != nil {
				t.Fatalf("the killed process left no %s: %v", suffix, err)
			}
		}
		s, err := Open(t.Context(), path, nil)
		must(t, err)
		if got := counts(t, s); got[driver.Available] != 20 || got[driver.Pending] != 0 {
			t.Errorf("the store has %v, want 20 available tasks", got)
		}
		wantSound(t, s)
		must(t, s.Close())
	}
}
