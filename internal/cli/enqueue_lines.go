package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	lineBatch      = 500     // tasks a batch
	lineBatchBytes = 4 << 20 // payload bytes a batch
	maxComplaints  = 10      // refused lines that are told one by one
)

// lineBatchOf is a run of lines on their way into the store.
type lineBatchOf struct {
	tasks   []waggle.NewTask
	numbers []int // of the lines, parallel to tasks
	refused []*badLine
	err     error // the stream ended with it
}

// enqueueLines makes a task of every line of standard input, in batches, and prints their receipts as they come.
func (a *app) enqueueLines(ctx context.Context, c *waggle.Client, typ string, f *enqueueFlags) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	limit := c.Store().Capabilities().Limit.MaxPayload
	batches := make(chan lineBatchOf) // reading goes on while a batch is stored
	go readBatches(ctx, newLineReader(a.in, limit), typ, &f.options, batches)

	s := &lineStream{app: a, list: a.newReceiptList(), bar: a.newProgress(-1, "adding")}
	defer s.bar.close()
	for {
		select {
		case <-ctx.Done():
			return s.list.close(context.Cause(ctx))
		case b, open := <-batches:
			if !open {
				return s.end()
			}
			if err := s.store(ctx, c, b); err != nil {
				return s.fail(err)
			}
		}
	}
}

// readBatches reads lines into batches until the stream or ctx ends. A reader that blocks is left behind.
func readBatches(ctx context.Context, r *lineReader, typ string, opts *waggle.EnqueueOptions, out chan<- lineBatchOf) {
	defer close(out)
	for end := false; !end; {
		var b lineBatchOf
		for size := 0; !end && len(b.tasks)+len(b.refused) < lineBatch && size < lineBatchBytes; {
			payload, number, err := r.next()
			bad, refused := errors.AsType[*badLine](err)
			switch {
			case refused:
				b.refused = append(b.refused, bad)
			case errors.Is(err, io.EOF):
				end = true
			case err != nil:
				b.err, end = err, true
			default:
				size += len(payload)
				b.numbers = append(b.numbers, number)
				b.tasks = append(b.tasks, waggle.NewTask{Type: typ, Payload: json.RawMessage(payload), Options: opts})
			}
		}
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
	}
}

// lineStream counts what became of the lines.
type lineStream struct {
	app               *app
	list              *list
	bar               *progress
	accepted, refused int
}

func (s *lineStream) store(ctx context.Context, c *waggle.Client, b lineBatchOf) error {
	for _, bad := range b.refused {
		s.refuse(bad)
	}
	if len(b.tasks) > 0 {
		results, err := c.EnqueueBatch(ctx, b.tasks)
		if err != nil {
			return fmt.Errorf("lines %d to %d: %w", b.numbers[0], b.numbers[len(b.numbers)-1], err)
		}
		for i, r := range results {
			if r.Err != nil {
				s.refuse(&badLine{b.numbers[i], "is refused: " + r.Err.Error()})
				continue
			}
			s.accepted++
			if err := s.list.add(receipt{Receipt: r.Receipt}, nil); err != nil {
				return err
			}
		}
		if err := s.list.flush(); err != nil {
			return err
		}
		s.bar.add(len(b.tasks))
	}
	return b.err
}

func (s *lineStream) refuse(bad *badLine) {
	s.refused++
	switch {
	case s.refused <= maxComplaints:
		s.app.say("waggle: %s: it is left out", visible(bad.Error()))
	case s.refused == maxComplaints+1:
		s.app.say("waggle: more lines are left out")
	}
}

// fail ends a stream that broke off. What was accepted before is printed and stays.
func (s *lineStream) fail(err error) error {
	if s.accepted > 0 && ctxFree(err) {
		err = partlyf("%d tasks were added, then it broke off at %w", s.accepted, err)
	}
	return s.list.close(err)
}

// ctxFree reports whether an error is one of its own and not that of a command that was stopped.
func ctxFree(err error) bool { return !errors.Is(err, context.Canceled) }

func (s *lineStream) end() error {
	s.bar.close()
	var err error
	switch {
	case s.refused > 0 && s.accepted > 0:
		err = partlyf("%d tasks were added, %d lines were left out: mend those and add them alone", s.accepted, s.refused)
	case s.refused > 0:
		err = driver.Invalidf("no task was added, all %d lines were left out", s.refused)
	default:
		s.app.say("%s added", plural(s.accepted, "task"))
	}
	return s.list.close(err)
}
