package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// Mixes of tasks that a producer makes.
const (
	mixPlain = "plain" // tasks that do nothing
	mixSlow  = "slow"  // tasks that take 50 ms
	mixAll   = "all"   // every kind that ends by itself
)

// producer enqueues tasks that it numbers.
type producer struct {
	p      *proc
	client *waggle.Client
	rand   *rand.Rand
	made   int
}

// produce is the role of a producer: it enqueues as many tasks as it was told, or until the gate "end" opens.
func (p *proc) produce(ctx context.Context) error {
	client, err := waggle.NewClient(p.store, &waggle.ClientOptions{Logger: p.log})
	if err != nil {
		return err
	}
	b := &producer{p: p, client: client, rand: rand.New(rand.NewPCG(p.role.Seed, 1))}
	end := p.gate("end")
	for p.role.Tasks == 0 || b.made < p.role.Tasks {
		select {
		case <-end:
			p.tell(line{Kind: lineDone, Text: strconv.Itoa(b.made)})
			return client.Close(ctx)
		case <-ctx.Done():
			return client.Close(context.WithoutCancel(ctx))
		default:
		}
		if err := b.batch(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("enqueue", "error", err) // its outcome is in the history
		}
		if p.role.Tasks == 0 {
			_ = wait(ctx, time.Duration(b.rand.Int64N(int64(60*time.Millisecond))))
		}
	}
	p.tell(line{Kind: lineDone, Text: strconv.Itoa(b.made)})
	return client.Close(ctx)
}

// batch enqueues the next tasks in one call. A call whose outcome is unknown is made again, as a caller should.
func (b *producer) batch(ctx context.Context) error {
	n := max(1, b.p.role.Batch)
	tasks := make([]waggle.NewTask, n)
	for i := range tasks {
		tasks[i] = b.next()
	}
	for try := 0; ; try++ {
		_, err := b.client.EnqueueBatch(ctx, tasks)
		if err == nil || try == 3 || ctx.Err() != nil || driver.ClassOf(err).Err != driver.ErrUnavailable {
			return err
		}
	}
}

func (b *producer) next() waggle.NewTask {
	b.made++
	o := &waggle.EnqueueOptions{ID: b.p.role.task(b.made)}
	t := waggle.NewTask{Type: taskType, Options: o}
	switch b.p.role.Mix {
	case mixAll:
		t.Payload = b.vary(o)
	case mixSlow:
		t.Payload = act{Do: doWork, For: 50 * time.Millisecond}
	default:
		t.Payload = act{}
	}
	return t
}

// task is the id of the n-th task of a producer, counted from 1.
func (r *role) task(n int) string { return fmt.Sprintf("%s-%06d", r.Name, n) }

// vary makes a task of a random kind. Nothing but its own doing ends it early, so its crash limit is out of reach.
func (b *producer) vary(o *waggle.EnqueueOptions) act {
	o.CrashLimit, o.MaxAttempts = 1000, 1000
	o.Priority = b.rand.IntN(5) - 2
	var a act
	if b.rand.IntN(200) == 0 {
		o.CrashLimit = 2
		return act{Do: doKill}
	}
	switch b.rand.IntN(12) {
	case 0:
		o.Delay = time.Duration(b.rand.IntN(900)) * time.Millisecond
	case 1:
		a.Do = doFailOnce
	case 2:
		a.Do = doSnooze
	case 3:
		a.Do = doDiscard
	case 4:
		a.Do = doCancel
	case 5:
		a.Child = o.ID + ".child"
	case 6:
		a.Result = 1 + b.rand.IntN(4000)
	case 7:
		a.Do, o.MaxAttempts = doFail, 2
	case 8:
		o.Unique = &waggle.UniqueOptions{Key: fmt.Sprintf("key-%d", b.rand.IntN(5)), OnConflict: b.conflict()}
	case 9:
		a.Do = doPanic
		o.MaxAttempts = 1
	case 10:
		a.Do, a.For = doWork, time.Duration(b.rand.IntN(60))*time.Millisecond
	}
	return a
}

func (b *producer) conflict() waggle.OnConflict {
	return []waggle.OnConflict{waggle.ConflictReturn, waggle.ConflictReject, waggle.ConflictReplace}[b.rand.IntN(3)]
}

// read is the role of a reader: it walks all records again and again.
func (p *proc) read(ctx context.Context) error {
	client, err := waggle.NewClient(p.store, &waggle.ClientOptions{Logger: p.log})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		for _, err := range client.All(ctx, waggle.Filter{}) {
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		_ = wait(ctx, 200*time.Millisecond) // its end is looked at above
	}
	return nil
}
