package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	lineBatch      = 500                    // tasks a batch
	lineBatchBytes = 4 << 20                // payload bytes a batch
	lineBatchTime  = 100 * time.Millisecond // how long a line waits for others
	maxComplaints  = 10                     // refused lines that are told one by one
)

// line is a line of standard input, or the end of it.
type line struct {
	number int
	task   waggle.NewTask
	size   int
	err    error // a *badLine, or what ended the stream
}

// lineBatchOf is a run of lines on their way into the store.
type lineBatchOf struct {
	tasks   []waggle.NewTask
	numbers []int // of the lines, parallel to tasks
	refused []*badLine
	last    int   // number of the last line
	err     error // the stream ended with it
}

// enqueueLines makes a task of every line of standard input, in batches, and prints their receipts as they come.
func (a *app) enqueueLines(ctx context.Context, c *waggle.Client, typ string, f *enqueueFlags) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.sayReading("lines")
	limit, parse := c.Store().Capabilities().Limit.MaxPayload, stringTask(typ, &f.options)
	if f.jsonl {
		limit, parse = limit+maxLineOptions, wholeTask(&f.options)
	}
	lines, batches := make(chan line, lineBatch), make(chan lineBatchOf) // reading goes on while a batch is stored
	go readLines(ctx, newLineReader(a.in, limit), parse, lines)
	go batchLines(ctx, lines, batches)

	s := &lineStream{app: a, list: a.newReceiptList(), bar: a.newProgress(-1, "adding")}
	defer s.bar.close()
	for {
		select {
		case <-ctx.Done():
			return s.interrupted(ctx)
		case b, open := <-batches:
			if !open {
				return s.end()
			}
			// A batch that has begun is not cut short, so that it is known what was stored.
			batch, end := s.app.untilFull(ctx)
			err := s.store(batch, c, b)
			end()
			if err != nil {
				return s.fail(err)
			}
		}
	}
}

// readLines reads lines until the stream or ctx ends. A read that blocks is left behind.
func readLines(ctx context.Context, r *lineReader, parse lineParser, out chan<- line) {
	defer close(out)
	for {
		l := r.task(parse)
		if errors.Is(l.err, io.EOF) {
			return
		}
		select {
		case out <- l:
		case <-ctx.Done():
			return
		}
		if _, refused := errors.AsType[*badLine](l.err); l.err != nil && !refused {
			return
		}
	}
}

// batchLines gathers lines into batches: of a size, or of what comes within a short time.
func batchLines(ctx context.Context, in <-chan line, out chan<- lineBatchOf) {
	defer close(out)
	for end := false; !end; {
		var b lineBatchOf
		b, end = nextBatch(ctx, in)
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
	}
}

func nextBatch(ctx context.Context, in <-chan line) (b lineBatchOf, end bool) {
	var late <-chan time.Time // set by the first line
	for size := 0; len(b.tasks)+len(b.refused) < lineBatch && size < lineBatchBytes; {
		select {
		case <-ctx.Done():
			return b, true
		case <-late:
			return b, false
		case l, open := <-in:
			if !open {
				return b, true
			}
			bad, refused := errors.AsType[*badLine](l.err)
			switch {
			case refused:
				b.refused = append(b.refused, bad)
			case l.err != nil:
				b.err = l.err
				return b, true
			default:
				b.tasks, b.numbers = append(b.tasks, l.task), append(b.numbers, l.number)
			}
			size, b.last = size+l.size, l.number
			if late == nil {
				late = time.After(lineBatchTime)
			}
		}
	}
	return b, false
}

// lineStream counts what became of the lines.
type lineStream struct {
	app               *app
	list              *list
	bar               *progress
	accepted, refused int
	full              int // of the refused, for want of room
	last              int // the last line that was dealt with
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
				if errors.Is(r.Err, driver.ErrQueueFull) {
					s.full++
				}
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
	s.last = b.last
	return b.err
}

// interrupted ends a stream that was broken off by a signal: what was stored is told and stays.
func (s *lineStream) interrupted(ctx context.Context) error {
	s.bar.close()
	s.app.say("%s added, up to line %d: what follows is not stored", plural(s.accepted, "task"), s.last)
	return s.list.close(context.Cause(ctx))
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
		err = partlyf("%s added, then it failed at %w", plural(s.accepted, "task"), err)
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
		err = partlyf("%s added, %s left out: correct what was left out and add only that", plural(s.accepted, "task"), plural(s.refused, "line"))
	case s.refused > 0 && s.full == s.refused:
		err = driver.Errorf(driver.ErrQueueFull, "no task was added: there was no room for any of %s", plural(s.refused, "line"))
	case s.refused > 0:
		err = driver.Invalidf("no task was added: %s left out", plural(s.refused, "line"))
	default:
		s.app.say("%s added", plural(s.accepted, "task"))
	}
	return s.list.close(err)
}
