package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/waggleq/waggle/driver"
)

// The tasks of a plan's step are stored by the script that stores all new tasks, with all that belongs to it: lines, unique
// keys of any shard, wake-ups. Between the step and that they are in the shard's outbox, in the same step as the plan's new
// version. Whoever did the step stores them and then takes the entry out, in one step with the news of those that could
// not be stored. If it dies on the way, the next Fetch that takes plans, or Maintain, does the rest: tasks have ids, so
// nothing is stored twice, and an entry is taken out once, so nothing is told twice.
//
// planout holds PLAN/VERSION → tasks, planoutdue when others are to see to an entry.

// sending is an entry of the outbox.
type sending struct {
	entry string
	ref   driver.PlanRef
	tasks []*driver.Task
}

// encodeTasks returns the stored form of tasks: for each, with uvarints before the parts for their lengths, packed id, type,
// queue, envelope and payload, then the priority as a signed varint.
func encodeTasks(tasks []*driver.Task) []byte {
	var dst []byte
	part := func(b []byte) { dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...) }
	for _, t := range tasks {
		part(driver.PackID(nil, t.ID))
		part([]byte(t.Type))
		part([]byte(t.Queue))
		part(driver.AppendEnvelope(nil, t))
		part(t.Payload)
		dst = binary.AppendVarint(dst, int64(t.Priority))
	}
	return dst
}

func decodeTasks(b []byte) ([]*driver.Task, error) {
	var tasks []*driver.Task
	for len(b) > 0 {
		var parts [5][]byte
		for i := range parts {
			n, size := binary.Uvarint(b)
			if size <= 0 || n > uint64(len(b)-size) {
				return nil, errDamagedOutbox
			}
			parts[i] = b[size : size+int(n)]
			b = b[size+int(n):]
		}
		priority, size := binary.Varint(b)
		if size <= 0 {
			return nil, errDamagedOutbox
		}
		b = b[size:]
		t := &driver.Task{}
		if err := driver.DecodeEnvelope(parts[3], t); err != nil {
			return nil, err
		}
		t.ID, t.Type, t.Queue, t.Payload, t.Priority = driver.UnpackID(parts[0]), string(parts[1]), string(parts[2]), parts[4], int(priority)
		tasks = append(tasks, t)
	}
	return tasks, nil
}

var errDamagedOutbox = driver.Errorf(driver.ErrCorrupt, "the tasks of a plan's step are damaged")

// sentArgs is after how many arguments a script is called that takes entries out of the outbox, so that none takes long.
const sentArgs = 1000

// send stores the tasks of steps and takes their entries out of the outbox.
func (s *Store) send(ctx context.Context, sh *shard, list []sending) error {
	if len(list) == 0 {
		return nil
	}
	var all []*driver.Task
	for _, e := range list {
		all = append(all, e.tasks...)
	}
	results := make([]driver.EnqueueResult, 0, len(all))
	for _, chunk := range batches(all, s.caps.Limit) {
		r, err := s.Enqueue(ctx, chunk, driver.EnqueueOptions{})
		if err != nil {
			return err
		}
		results = append(results, r...)
	}
	var args []string
	told := false
	for i, e := range list {
		news, err := s.sentNews(ctx, sh, e.tasks, results[:len(e.tasks)])
		if err != nil {
			return err
		}
		results = results[len(e.tasks):]
		if args == nil {
			args = s.head(sh, "", "")
		}
		args = append(append(args, e.entry, e.ref.String(), strconv.Itoa(len(news))), news...)
		told = told || len(news) > 0
		if len(args) < sentArgs && i < len(list)-1 {
			continue
		}
		if _, err := s.call(ctx, s.data, sh, planSentScript, sh.keysOf(planSentScript, ""), args); err != nil {
			return err
		}
		args = nil
	}
	if told {
		s.signalPlanners(ctx, sh)
	}
	return nil
}

// batches cuts tasks into calls of Enqueue.
func batches(tasks []*driver.Task, l driver.Limits) [][]*driver.Task {
	var list [][]*driver.Task
	for len(tasks) > 0 {
		n, size := 0, 0
		for n < len(tasks) && n < l.MaxBatch && (n == 0 || size+len(tasks[n].Payload) <= l.MaxBatchBytes) {
			size += len(tasks[n].Payload)
			n++
		}
		list, tasks = append(list, tasks[:n]), tasks[n:]
	}
	return list
}

// sentNews returns what a plan is to be told of its tasks: those that were refused, and those that had ended before.
func (s *Store) sentNews(ctx context.Context, sh *shard, tasks []*driver.Task, results []driver.EnqueueResult) ([]string, error) {
	var news []string
	add := func(n driver.News) { news = append(news, string(driver.AppendNews(nil, &n))) }
	for i, t := range tasks {
		switch r := results[i]; {
		case r.Err != nil:
			add(driver.RefusedNews(zeroTime, t, r.Err))
		case r.Existing && r.ID != t.ID:
			add(driver.RefusedNews(zeroTime, t, driver.PlanTaskTaken(t, r.ID)))
		case r.Existing && r.State.Ended():
			entries, _, err := s.read(ctx, sh, []string{string(driver.PackID(nil, t.ID))})
			if err != nil {
				return nil, err
			}
			if e := entries[0]; e != nil {
				add(e.endNews(t.Plan.Step, stateOf[e.run.state]))
			}
		}
	}
	return news, nil
}

// sendForgotten does what the worker that did a step did not come to.
func (s *Store) sendForgotten(ctx context.Context, sh *shard, entries []string) error {
	if len(entries) == 0 {
		return nil
	}
	values, err := s.hashFields(ctx, sh, "planout", entries)
	if err != nil {
		return err
	}
	var errs []error
	for i, entry := range entries {
		ref, ok := driver.ParsePlanRef(entry[:max(lastSlash(entry), 0)])
		tasks, err := decodeTasks([]byte(values[i]))
		if !ok || err != nil {
			tasks = nil // what can't be read holds up nobody: an audit has told of it
		}
		errs = append(errs, s.send(ctx, sh, []sending{{entry: entry, ref: ref, tasks: tasks}}))
	}
	return errors.Join(errs...)
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

// endNews is the news of a task that has ended, or was deleted (state "").
func (e *entry) endNews(step string, state driver.State) driver.News {
	var r driver.Record
	e.addDetails(&r)
	var last *driver.Attempt
	if n := len(r.Attempts); n > 0 {
		last = &r.Attempts[n-1]
	}
	reason := driver.Reason("")
	if state != "" {
		reason = reasons[e.run.reason]
	}
	n := driver.EndNews(zeroTime, driver.UnpackID([]byte(e.id)), step, state, reason, last)
	if state == driver.Completed {
		n.Result, n.ResultEncoding = r.Result, r.ResultEncoding
	}
	return n
}

// tell adds to a change that the task's plan is told of its end, or that it was deleted (state "").
func (m *mover) tell(it *item, e *entry, state driver.State) {
	if e.task.flags&flagPlan == 0 {
		return
	}
	var t driver.Task
	if driver.DecodeEnvelope([]byte(e.task.envelope), &t) != nil || t.Plan == nil {
		return
	}
	n := e.endNews(t.Plan.Step, state)
	m.told = true
	it.do("NEWS", m.sh.key("plan"), m.sh.key("plannews"), m.sh.key("plandue"), m.sh.key("planwake"), t.Plan.String(), string(driver.AppendNews(nil, &n)))
}

// planKeys is how many keys a NEWS write has before its other arguments, besides its first.
const planKeys = 3
