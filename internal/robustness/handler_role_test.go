package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
)

// taskType is the type of all tasks here: what a handler does is in the payload.
const taskType = "act"

// act is the payload of a task.
type act struct {
	Do string `json:"do"`
	// On is a gate to wait for before anything else.
	On string `json:"on,omitzero"`
	// For is how long "work" takes.
	For time.Duration `json:"for,omitzero"`
	// Child is the id of a task to enqueue before anything else is done.
	Child string `json:"child,omitzero"`
	// Result is how many bytes the result has.
	Result int `json:"result,omitzero"`
}

// What a handler can do.
const (
	doNothing  = ""
	doWork     = "work"      // take its time, give up when the context ends
	doGate     = "gate"      // wait for the gate that is named like the task, give up when the context ends
	doDeaf     = "deaf"      // wait for that gate whatever becomes of the context
	doFail     = "fail"      // fail each time
	doFailOnce = "fail-once" // fail the first attempt
	doSnooze   = "snooze"    // snooze while the task is young
	doDiscard  = "discard"
	doCancel   = "cancel"
	doPanic    = "panic"
	doGoexit   = "goexit"
	doExit     = "exit"     // end the process in order
	doOverflow = "overflow" // use up the stack
	doMapRace  = "map-race" // have the runtime find a concurrent use of a map
	doKill     = "kill"     // be killed as for want of memory
)

// work is the role of a worker.
func (p *proc) work(ctx context.Context) error {
	w, err := waggle.NewWorker(p.store, &waggle.WorkerOptions{
		Slots: p.role.Slots, Lease: p.role.Lease, DrainTimeout: p.role.Drain, UntilEmpty: p.role.UntilEmpty,
		Name: p.role.Name, Logger: p.log, Build: "robustness",
	})
	if err != nil {
		return err
	}
	opts := waggle.HandleOptions{Backoff: &waggle.Backoff{Base: 50 * time.Millisecond, Cap: 200 * time.Millisecond}}
	if p.role.Gather > 0 {
		waggle.HandleBatch(w, taskType, p.handleBatch, &waggle.BatchOptions{Max: p.role.Gather, Wait: 100 * time.Millisecond, HandleOptions: opts})
	} else {
		waggle.Handle(w, taskType, p.handle, &opts)
	}
	err = w.Run(ctx)
	p.tell(line{Kind: lineDone})
	return err
}

// handleBatch runs the tasks of a batch side by side.
func (p *proc) handleBatch(_ context.Context, batch []waggle.BatchItem[act]) error {
	var wg sync.WaitGroup
	for _, item := range batch {
		wg.Go(func() {
			var err error
			if fault := guard.Apart(func() { err = p.handle(item.Context(), item.Task, item.In) }); fault != nil {
				err = fault
			}
			item.End(err)
		})
	}
	wg.Wait()
	return errors.New("a task of the batch was not ended")
}

// handle runs a task, and writes down and tells when and how.
func (p *proc) handle(ctx context.Context, t *waggle.Task, in act) (err error) {
	claim := p.hist.claims.take(t)
	p.hist.Started(t.Worker(), claim)
	l := line{Task: t.ID, Attempt: t.Attempt, Worker: t.Worker()}
	l.Kind = lineStarted
	p.tell(l)
	defer context.AfterFunc(ctx, func() {
		p.tell(line{Kind: lineCause, Task: t.ID, Attempt: t.Attempt, Worker: t.Worker(), Text: context.Cause(ctx).Error()})
	})()
	defer func() {
		p.hist.Ended(t.Worker(), claim, outcomeOf(err))
		l.Kind, l.Text = lineEnded, fmt.Sprint(err)
		p.tell(l)
	}()
	if fp := p.role.Fail; fp != nil && fp.Op == "Handler" {
		time.AfterFunc(fp.Within, p.fail)
	}
	if in.On != "" {
		<-p.gate(in.On)
	}
	if in.Child != "" {
		_, err := t.Client().Enqueue(ctx, taskType, act{}, &waggle.EnqueueOptions{ID: in.Child})
		if err != nil {
			return err
		}
	}
	if in.Result > 0 {
		if err := t.SetResult(strings.Repeat("r", in.Result)); err != nil {
			return err
		}
	}
	return p.do(ctx, t, in)
}

// outcomeOf is how the history calls what a handler returned. The checker looks at settlements; this is for people.
func outcomeOf(err error) driver.Outcome {
	if err != nil {
		return driver.Retry
	}
	return driver.Complete
}

var errWanted = errors.New("failing as told")

func (p *proc) do(ctx context.Context, t *waggle.Task, in act) error {
	switch in.Do {
	case doWork:
		return wait(ctx, in.For)
	case doGate:
		select {
		case <-p.gate(t.ID):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case doDeaf:
		<-p.gate(t.ID)
	case doFail:
		return errWanted
	case doFailOnce:
		if t.Attempt == 1 {
			return errWanted
		}
	case doSnooze:
		if time.Since(t.EnqueuedAt) < 300*time.Millisecond {
			return waggle.Snooze(200 * time.Millisecond)
		}
	case doDiscard:
		return waggle.Discard(errWanted)
	case doCancel:
		return waggle.Cancel(errWanted)
	case doPanic:
		panic("as told")
	case doGoexit:
		runtime.Goexit()
	default:
		p.endProcess(in.Do)
	}
	return nil
}

// endProcess ends this process in one of the ways that no recover stops.
func (p *proc) endProcess(how string) {
	switch how {
	case doExit:
		os.Exit(7)
	case doOverflow:
		overflow(0)
	case doMapRace:
		raceOnMap()
	case doKill:
		p.die()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// overflow recurses until the runtime gives up. The frame is large, so that this takes a moment only.
func overflow(n int) int {
	var frame [1 << 16]byte
	frame[n%len(frame)] = 1
	if n < 0 {
		return 0 // never: but a recursion without an end is taken for a mistake
	}
	return overflow(n+1) + int(frame[(n*7)%len(frame)])
}

// raceOnMap writes to a map from many goroutines until the runtime notices and ends the process.
func raceOnMap() {
	m := map[int]int{}
	for range 16 {
		go func() {
			for i := 0; ; i++ {
				m[i%8] = i
			}
		}()
	}
	select {}
}
