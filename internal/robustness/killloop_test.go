package robustness

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// TestKillLoop has producers, workers and maintainers share a store while one of them is killed or frozen every few
// hundred milliseconds, for a while; then everything is let come to rest and the histories are checked.
func TestKillLoop(t *testing.T) {
	d := time.Duration(0) // as long as the engine's loop is by default
	if testing.Short() {
		d = 5 * time.Second
	}
	killLoop(t, envDuration(t, "WAGGLE_KILLLOOP", d), false)
}

// TestSoakKillLoop is TestKillLoop for as long as WAGGLE_SOAK says, with retention at work.
func TestSoakKillLoop(t *testing.T) {
	d := envDuration(t, "WAGGLE_SOAK", 0)
	if d == 0 {
		t.Skip("a long test: set WAGGLE_SOAK to a duration such as 10m, or run make soak")
	}
	killLoop(t, d, true)
}

func envDuration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("WAGGLE_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("repeat its choices with WAGGLE_SEED=%d", n)
	return n
}

// killLoop runs on one engine after the other: the machine is busy enough with one.
func killLoop(t *testing.T, d time.Duration, prune bool) {
	for name, e := range engines {
		t.Run(name, func(t *testing.T) {
			c := newChaos(t, e, seed(t))
			c.prunes = prune
			c.keep()
			c.run(cmp.Or(d, e.loop))
			c.settle()
			c.check(&history.Options{AtRest: true, Prunes: prune, Recovery: patience})
			t.Logf("%d processes, %d killed, %d frozen", len(c.kids), c.killed, c.frozen)
		})
	}
}

// chaos is a site whose processes are killed and frozen at random.
type chaos struct {
	*site
	rand           *rand.Rand
	posts          []*post
	killed, frozen int
}

// post is a role that is filled again when its holder has died.
type post struct {
	role  role
	lives int
	child *child
	thaw  time.Time // when the frozen holder goes on; zero if it is not frozen
}

func newChaos(t *testing.T, e engine, seed uint64) *chaos {
	c := &chaos{site: newSite(t, e), rand: rand.New(rand.NewPCG(seed, 0))}
	for i := range 2 {
		c.posts = append(c.posts, &post{role: role{Role: roleProducer, Name: fmt.Sprintf("producer%d", i), Mix: mixAll, Batch: 4}})
	}
	for i := range 4 {
		c.posts = append(c.posts, &post{role: role{Role: roleWorker, Name: fmt.Sprintf("worker%d", i),
			Lease: time.Second, Drain: waggle.NoDrain, Slots: 8, Gather: i % 2 * 4}})
	}
	c.posts = append(c.posts, &post{role: role{Role: roleMaintainer, Name: "maintainer", Meddle: true}},
		&post{role: role{Role: roleReader, Name: "reader"}})
	return c
}

// keep sets the retention: nothing is removed, or what has ended soon is.
func (c *chaos) keep() {
	all := driver.Keep{Age: 24 * time.Hour, Count: -1, Bytes: -1}
	r := driver.Retention{Completed: all, Cancelled: all, Discarded: all}
	if c.prunes {
		few := driver.Keep{Age: time.Minute, Count: 2000, Bytes: -1}
		// What was replaced by a task with the same unique key is not on record as cancelled, so those are kept.
		r = driver.Retention{Completed: few, Cancelled: all, Discarded: all}
	}
	must(c, c.client.SetRetention(c.Context(), waggle.DefaultQueue, r))
}

// run does harm until the time is over.
func (c *chaos) run(d time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Before(end) && !c.Failed() {
		c.fill()
		pause := time.NewTimer(time.Duration(100+c.rand.IntN(300)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-c.Context().Done():
			return
		}
		p := c.posts[c.rand.IntN(len(c.posts))]
		switch {
		case p.child.ended() || !p.child.isReady(): // on a slow machine each gets its chance to do something
		case !p.thaw.IsZero():
			p.child.kill() // a frozen process can be killed too
			c.killed++
		case c.rand.IntN(3) > 0:
			p.child.kill()
			c.killed++
		default:
			p.child.freeze()
			p.thaw = time.Now().Add(time.Duration(c.rand.Int64N(int64(2500 * time.Millisecond))))
			c.frozen++
		}
	}
}

// fill replaces the dead and thaws those whose time has come.
func (c *chaos) fill() {
	for _, p := range c.posts {
		if p.child != nil && p.child.ended() && !p.child.wasKilled() {
			c.Errorf("%s ended by itself: %v", p.child.role.Name, p.child.cmd.ProcessState)
		}
		switch {
		case p.child == nil || p.child.ended():
			p.lives++
			r := p.role
			r.Name, r.Seed, r.Quiet = fmt.Sprintf("%s-%d", p.role.Name, p.lives), c.rand.Uint64(), true
			p.child, p.thaw = c.start(r), time.Time{}
		case !p.thaw.IsZero() && time.Now().After(p.thaw):
			p.child.thaw()
			p.thaw = time.Time{}
		}
	}
}

// settle lets what lives do its work to the end, and ends it in order. Poison tasks still kill a worker now and then, so
// dead ones are replaced until nothing is left.
func (c *chaos) settle() {
	for _, p := range c.posts {
		p.child.thaw()
		if !p.child.ended() { // before it is ready it does not know yet how to be stopped
			p.child.await("the store to be open, or the end of a killed one", func(l line) bool { return l.Kind == lineReady })
		}
		if p.role.Role != roleWorker {
			p.child.stop()
		}
	}
	for _, p := range c.posts {
		if p.role.Role != roleWorker {
			p.child.wait()
		}
	}
	deadline := time.Now().Add(2 * patience)
	for {
		last := c.worker(role{Name: fmt.Sprintf("last-%d", len(c.kids)), UntilEmpty: true, Slots: 16, Quiet: true})
		if last.wait().Success() {
			break
		}
		if time.Now().After(deadline) {
			c.Fatal("the store does not come to rest")
		}
	}
	for _, p := range c.posts {
		p.child.stop()
		if state := p.child.wait(); !state.Success() && !p.child.wasKilled() {
			c.Errorf("%s ended with %v", p.child.role.Name, state)
		}
	}
}
