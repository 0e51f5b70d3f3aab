package crowd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/room"
)

const lookEvery = 20 * time.Millisecond

// Crowd is a number of users who write, half of them at each web server, and two who read, one at each.
type Crowd struct {
	history *check.History
	writers []*User
	readers []*User
	stop    context.CancelFunc
	wg      sync.WaitGroup
	waits   sync.Map // id of a message → channel that gets the time at which it was seen
	mu      sync.Mutex
	seen    time.Time // when the last message was seen
	longest time.Duration
}

// Gather brings a crowd into a room. Leave ends it.
func Gather(servers []string, roomName string, writers int, h *check.History) *Crowd {
	ctx, stop := context.WithCancel(context.Background())
	c := &Crowd{history: h, stop: stop}
	for i, at := range [][]string{servers, reversed(servers)} {
		r := &User{Name: fmt.Sprint("reader-", i+1), Room: roomName, Servers: at, History: h}
		r.OnSeen = c.saw
		c.readers = append(c.readers, r)
		h.Joined(r.Name)
		c.wg.Go(func() { r.Listen(ctx) })
	}
	for i := range writers {
		at := servers
		if i%2 == 1 {
			at = reversed(servers)
		}
		c.writers = append(c.writers, &User{Name: fmt.Sprint("writer-", i+1), Room: roomName, Servers: at, History: h})
	}
	return c
}

func reversed(s []string) []string { return []string{s[len(s)-1], s[0]} }

// Leave ends all connections.
func (c *Crowd) Leave() {
	c.stop()
	c.wg.Wait()
	for _, u := range append(c.writers, c.readers...) {
		u.Close()
	}
}

// saw notes when a message was first seen by a reader at the other server than its writer's.
func (c *Crowd) saw(e room.Entry) {
	now := time.Now()
	c.mu.Lock()
	if !c.seen.IsZero() {
		c.longest = max(c.longest, now.Sub(c.seen))
	}
	c.seen = now
	c.mu.Unlock()
	if w, ok := c.waits.Load(e.ID); ok {
		w.(*wait).saw(now)
	}
}

// LastSeen returns when a message was last seen, and the longest time in which none was since the last call.
func (c *Crowd) LastSeen() (at time.Time, longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	longest, c.longest = c.longest, 0
	return c.seen, longest
}

// wait is one for a message to be seen by both readers: one of them is at the other server.
type wait struct {
	mu   sync.Mutex
	left int
	at   chan time.Time
}

func (w *wait) saw(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left--; w.left == 0 {
		w.at <- now
	}
}

// deliver sends a message and waits until both readers have seen it. It returns how long that took.
func (c *Crowd) deliver(ctx context.Context, u *User, text string) (time.Duration, error) {
	id := NewID()
	w := &wait{left: len(c.readers), at: make(chan time.Time, 1)}
	c.waits.Store(id, w)
	defer c.waits.Delete(id)
	begun := time.Now()
	if err := u.Send(ctx, id, text); err != nil {
		return 0, err
	}
	select {
	case at := <-w.at:
		return at.Sub(begun), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func text(length int) string { return strings.Repeat("Bees dance. ", length/12+1)[:length] }

// OneByOne sends messages for a time, each when the last one was seen, and returns how long each took.
func (c *Crowd) OneByOne(ctx context.Context, d time.Duration, length int) (took []time.Duration, err error) {
	if _, err := c.deliver(ctx, c.writers[0], text(length)); err != nil { // connections are made
		return nil, err
	}
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		one, err := c.deliver(ctx, c.writers[i%len(c.writers)], text(length))
		if err != nil {
			return nil, err
		}
		took = append(took, one)
		if err := sleep(ctx, lookEvery); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// Load sends messages at a rate for a time, or until ctx ends, whether or not the ones before were seen. What is under way
// at the end is waited for, and counts.
func (c *Crowd) Load(ctx context.Context, d time.Duration, rate, length int) ([]time.Duration, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i, end := 0, time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		wg.Go(func() {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			one, err := c.deliver(late, c.writers[i%len(c.writers)], text(length))
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, one); err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	return took, failed
}

// AwaitAll waits until every reader has seen every accepted message.
func (c *Crowd) AwaitAll(ctx context.Context) error {
	for !c.history.Complete() {
		if err := sleep(ctx, lookEvery); err != nil {
			return nil // the report says what is missing
		}
	}
	return nil
}
