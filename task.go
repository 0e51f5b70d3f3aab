package waggle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/runner"
)

// Task is a task as its handler sees it. The fields are the handler's to read; its methods may be called concurrently,
// and after the handler has returned they do nothing.
type Task struct {
	ID          string
	Type        string
	Queue       string
	Payload     []byte // the handler's own
	Encoding    Encoding
	Headers     map[string]string
	Tags        []string
	Priority    int
	Key         string // see EnqueueOptions.Key
	Attempt     int    // of MaxAttempts, from 1
	MaxAttempts int
	Crashes     int // workers that died with it
	EnqueuedAt  time.Time

	token int64
	job   *runner.Job
	w     *Worker
	ctx   taskContext

	mu     sync.Mutex
	result Data
	logger *slog.Logger
	ended  bool
	// Of a task of a batch: how its handler has ended it.
	decided bool
	verdict error
}

// taskContext is the handler's context: it leads to the task.
type taskContext struct {
	context.Context
	task *Task
}

type taskKey struct{}

func (c *taskContext) Value(key any) any {
	if key == (taskKey{}) {
		return c.task
	}
	return c.Context.Value(key)
}

// TaskFrom returns the task whose handler was given ctx, or a context made from it.
func TaskFrom(ctx context.Context) (*Task, bool) {
	t, ok := ctx.Value(taskKey{}).(*Task)
	return t, ok
}

func newTask(ctx context.Context, w *Worker, j *runner.Job) *Task {
	t := &Task{
		ID: j.ID, Type: j.Type, Queue: j.Queue, Payload: j.Payload, Encoding: j.Encoding, Headers: j.Headers, Tags: j.Tags,
		Priority: j.Priority, Key: j.Key, Attempt: j.Attempt, MaxAttempts: w.attempts(j), Crashes: j.Crashes, EnqueuedAt: j.EnqueuedAt,
		token: int64(j.Token), job: j, w: w,
	}
	t.ctx = taskContext{ctx, t}
	return t
}

// attempts is how often a task may fail in this worker.
func (w *Worker) attempts(j *runner.Job) int {
	e := (*dispatcher)(w).entry(j.Type)
	return e.opts.attempts(j.MaxAttempts, w.client.opts.MaxAttempts)
}

// Token returns the fencing token of this attempt: it is greater than that of every earlier claim of the task. A system
// that keeps the greatest it has seen can refuse what an outdated attempt still writes.
func (t *Task) Token() int64 { return t.token }

// Worker returns the id under which this process holds the task.
func (t *Task) Worker() string { return t.job.Worker() }

// Client returns the client of [WorkerOptions], or else one of the worker's store, to enqueue further tasks.
func (t *Task) Client() *Client { return t.w.client }

// Bind reads the payload into v, as [Handle] does.
func (t *Task) Bind(v any) error { return Data{t.Payload, t.Encoding}.Decode(v) }

// SetResult sets what is kept with the task when it completes: any value as JSON, json.RawMessage as it is, []byte as raw
// bytes, at most 64 KiB. The last call counts. It returns [ErrInvalid] for a value that can't be kept.
func (t *Task) SetResult(v any) error {
	data, err := encode("result", v)
	if err == nil && len(data.Bytes) > driver.MaxResultBytes {
		err = driver.Invalidf("the result has %d bytes, %d are allowed", len(data.Bytes), driver.MaxResultBytes)
	}
	if err == nil && len(data.Bytes) > 0 {
		err = driver.CheckEncoding("result", data.Encoding, data.Bytes)
	}
	if err != nil {
		return failed("result of "+t.ID, err)
	}
	t.mu.Lock()
	t.result = data
	t.mu.Unlock()
	return nil
}

// Progress says how far the task has come: done of total (0: unknown), and a note for people. It never blocks: what is
// said in quick succession is stored as the last of it.
func (t *Task) Progress(done, total float64, note string) {
	if !t.isOver() {
		t.job.Progress(Progress{Done: done, Total: total, Note: note})
	}
}

// Logger returns a logger whose lines go to the worker's logger, and from level Info on to the task's own log, which is
// kept with it: the newest 64 KiB. It never blocks for the store.
func (t *Task) Logger() *slog.Logger {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.logger == nil {
		t.logger = newTaskLogger(t)
	}
	return t.logger
}

func (t *Task) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// decide sets how a task of a batch ends. The last call counts.
func (t *Task) decide(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.decided, t.verdict = true, err
	}
}

// decision returns whether it was set how a task of a batch ends, and how.
func (t *Task) decision() (decided bool, verdict error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.decided, t.verdict
}

// verdictOr returns how the handler of its batch has ended the task, or else the end of the batch.
func (t *Task) verdictOr(err error) error {
	if decided, verdict := t.decision(); decided {
		return verdict
	}
	return err
}

// end closes the task for its handler and returns the result it set.
func (t *Task) end() Data {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	return t.result
}
