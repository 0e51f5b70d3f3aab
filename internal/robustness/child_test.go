package robustness

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// childEnv, if set, makes the test binary a child: it holds the role as JSON.
const childEnv = "WAGGLE_ROBUSTNESS_CHILD"

// parallel is how many tests run at once: most of them wait for leases to run out.
const parallel = "12"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(childMain(role))
	}
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// Roles of a child.
const (
	roleWorker     = "worker"
	roleProducer   = "producer"
	roleMaintainer = "maintainer"
	roleReader     = "reader"
)

// role is what a child is told to be.
type role struct {
	Role    string
	Name    string
	Store   string        // URL
	Shift   time.Duration // of the store's clock, as this process sees it
	History string        // file to which the child appends what it does
	Seed    uint64
	Wait    bool // do nothing before the line "go" comes in
	Quiet   bool // don't tell of handlers

	// Of workers.
	Lease      time.Duration
	Drain      time.Duration
	Slots      int
	Gather     int // run tasks in batches of this size; 0: one at a time
	UntilEmpty bool
	LogStdout  bool // log to standard output instead of standard error
	// Of producers.
	Tasks int    // how many to enqueue; 0: until the line "end" comes in
	Mix   string // what kind of tasks: see producer_test.go
	Batch int    // tasks a call; 0: one

	// Of maintainers: cancel, retry, run and delete tasks at random.
	Meddle bool

	Fail *failPoint
}

// line is what a child tells its parent while it runs.
type line struct {
	Kind    string
	At      time.Time
	Task    string
	Token   driver.Token
	Attempt int
	Worker  string
	Text    string
}

// Kinds of lines.
const (
	lineReady   = "ready"   // the store is open
	lineDying   = "dying"   // the fail point is reached, where the process dies
	lineFrozen  = "frozen"  // the fail point is reached, where the process freezes
	lineStarted = "started" // a handler begins
	lineEnded   = "ended"   // a handler has returned; Text is what it returned
	lineCause   = "cause"   // a handler's context has ended; Text is the cause
	lineLog     = "log"     // something was logged
	lineDone    = "done"    // a producer has enqueued all, a worker has ended its Run
)

// proc is the child's side of the process.
type proc struct {
	role  role
	store driver.Store // with fail points and recording
	hist  *log
	log   *slog.Logger

	mu    sync.Mutex
	out   *json.Encoder
	gates map[string]chan struct{}
}

// childMain runs a child to its end and returns its exit code.
func childMain(text string) int {
	p := &proc{out: json.NewEncoder(os.NewFile(3, "lines")), gates: map[string]chan struct{}{}}
	if err := json.Unmarshal([]byte(text), &p.role); err != nil {
		fmt.Fprintln(os.Stderr, "role:", err)
		return 2
	}
	if err := p.run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.role.Name, err)
		return 1
	}
	return 0
}

func (p *proc) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	p.log = slog.New(&tellingHandler{Handler: slog.NewTextHandler(p.logFile(), nil), p: p})
	slog.SetDefault(p.log)
	go p.listen()
	store, err := openStore(ctx, p.role.Store, p.role.Shift)
	if err != nil {
		return err
	}
	defer store.Close()
	p.hist, err = openLog(p.role.History, p.role.Name)
	if err != nil {
		return err
	}
	p.store = p.hist.wrap(withFailPoint(store, p.role.Fail, p.fail))
	p.tell(line{Kind: lineReady})
	if p.role.Wait {
		select {
		case <-p.gate("go"):
		case <-ctx.Done():
			return nil
		}
	}
	return p.play(ctx)
}

func (p *proc) play(ctx context.Context) error {
	switch p.role.Role {
	case roleWorker:
		return p.work(ctx)
	case roleProducer:
		return p.produce(ctx)
	case roleMaintainer:
		return p.maintain(ctx)
	case roleReader:
		return p.read(ctx)
	}
	return fmt.Errorf("unknown role %q", p.role.Role)
}

func (p *proc) logFile() *os.File {
	if p.role.LogStdout {
		return os.Stdout
	}
	return os.Stderr
}

// listen opens a gate for each line that the parent writes. When the parent is gone the child ends too.
func (p *proc) listen() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		close(p.gate(in.Text()))
	}
	os.Exit(3)
}

// gate returns the channel that is closed when the parent writes the line name.
func (p *proc) gate(name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.gates[name]
	if g == nil {
		g = make(chan struct{})
		p.gates[name] = g
	}
	return g
}

// tell sends a line to the parent.
func (p *proc) tell(l line) {
	if p.role.Quiet && l.Task != "" {
		return
	}
	l.At = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(l) // fails if the parent is gone; then this process is about to end
}

// die ends the process as the kernel would for want of memory: at once, with nothing cleaned up.
func (p *proc) die() {
	p.tell(line{Kind: lineDying})
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// fail does what is to happen at the fail point.
func (p *proc) fail() {
	if !p.role.Fail.Freeze {
		p.die()
	}
	p.tell(line{Kind: lineFrozen})
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-p.gate("thawed")
}

// tellingHandler tells the parent what is logged.
type tellingHandler struct {
	slog.Handler
	p *proc
}

func (h *tellingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn || !h.p.role.Quiet {
		var attrs strings.Builder
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&attrs, " %s", a)
			return true
		})
		h.p.tell(line{Kind: lineLog, Text: r.Message + attrs.String()})
	}
	return h.Handler.Handle(ctx, r)
}

func (h *tellingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &tellingHandler{h.Handler.WithAttrs(attrs), h.p}
}

func (h *tellingHandler) WithGroup(name string) slog.Handler {
	return &tellingHandler{h.Handler.WithGroup(name), h.p}
}
