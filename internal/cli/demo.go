package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

// demoTitles are the tasks of the demo.
var demoTitles = []struct{ typ, title string }{
	{"balance.calculate", "Calculate user balance"},
	{"payment.notify", "Send payment notification"},
	{"inventory.update", "Update inventory"},
}

const (
	demoLease    = time.Second
	demoHardTask = 1600 * time.Millisecond // the task whose worker is killed half way
	demoTask     = 700 * time.Millisecond  // the others, unless there are many
	demoBudget   = 4 * time.Second         // of one worker, for the others in all
	demoPatience = 30 * time.Second        // how long nothing may happen
	demoDetailed = 12                      // up to so many tasks each one is told of
	maxDemoTasks = 10_000                  // as many completed tasks as a queue keeps
)

// demoFlags are the flags of waggle demo.
type demoFlags struct {
	tasks, workers int
	cluster        bool
}

func (a *app) demoCommand() *cobra.Command {
	f := &demoFlags{tasks: 3, workers: 3}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See workers take over from one that is killed",
		Long: "Adds three tasks, starts three worker processes, kills the one that has the second task with SIGKILL halfway\n" +
			"through it, and shows who takes it over. Uses a store of its own, or with --store a queue of its own, and leaves\n" +
			"nothing behind. Exit code 0 means that every task was completed, once.",
		GroupID: "use",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.cluster && !cmd.Flags().Changed("tasks") {
				f.tasks = demoClusterTasks
			}
			return a.demo(cmd.Context(), f)
		},
	}
	cmd.Flags().Var(&count{&f.tasks, 1, maxDemoTasks}, "tasks", "how many tasks")
	cmd.Flags().BoolVar(&f.cluster, "cluster", false, "start a Cluster of six servers for it, and kill a master too")
	cmd.Flags().Var(&count{&f.workers, 2, 64}, "workers", "how many worker processes")
	return cmd
}

// demoFigures is what `demo -o json` prints.
type demoFigures struct {
	Tasks      int   `json:"tasks"`
	Completed  int   `json:"completed"`
	Lost       int   `json:"lost"`
	Recovered  int   `json:"recovered"`
	RecoveryMS int64 `json:"recovery_ms"`
	// MastersKilled is how many masters of the cluster were killed, with --cluster.
	MastersKilled int `json:"masters_killed,omitzero"`
}

// demo is one run of the demonstration.
type demo struct {
	*app
	flags  *demoFlags
	client *waggle.Client
	queue  string
	story  *story

	cluster *redisserver.Cluster // with --cluster
	lease   time.Duration

	workers []*demoWorker
	news    chan demoNews // from the workers

	ids    []string       // of the tasks, in order
	number map[string]int // of each task, from 1
	victim string         // the task whose worker is killed

	killed   *demoWorker
	killedAt time.Time
	recovery time.Duration // from the kill to the new start
	done     int
}

func (a *app) demo(ctx context.Context, f *demoFlags) (err error) {
	cluster, err := a.demoCluster(ctx, f)
	if err != nil {
		return err
	}
	if cluster != nil {
		a.quietClient = true // a master dies
		defer func() { err = errors.Join(err, cluster.Close()) }()
	}
	cleanUp, err := a.temporaryStore("waggle-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	var out io.Writer = a.out
	term := a.outTerm
	if a.format != formatTable {
		out, term = a.err, a.errTerm
	}
	return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error {
		d := &demo{
			app: a, flags: f, client: c, queue: "demo-" + driver.NewID(), news: make(chan demoNews, 64),
			number: map[string]int{}, story: newStory(out, term), cluster: cluster, lease: demoLease,
		}
		if cluster != nil {
			d.lease = demoClusterLease
		}
		return d.run(ctx)
	})
}

// temporaryStore makes a store for this command alone, unless the user named one. The function it returns removes it.
func (a *app) temporaryStore(prefix string) (cleanUp func() error, err error) {
	if a.store != "" {
		return func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "can't make a directory for a store of its own: %w", err)
	}
	a.store = "sqlite:" + filepath.Join(dir, "queue.db")
	return func() error { return os.RemoveAll(dir) }, nil
}

func (d *demo) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.prologue()
	defer func() { err = errors.Join(err, d.leave(context.WithoutCancel(ctx))) }()
	if err := d.startWorkers(ctx); err != nil {
		return err
	}
	if err := d.addTasks(ctx); err != nil {
		return err
	}
	if err := d.watch(ctx); err != nil {
		return err
	}
	d.stopWorkers()
	return d.conclude(ctx)
}

func (d *demo) prologue() {
	d.story.line("Waggle, a task queue without a master: %s, %s, and one of them will be killed.",
		plural(d.flags.tasks, "task"), plural(d.flags.workers, "worker process"))
	if d.cluster != nil {
		d.story.line("The queue is spread over a Cluster of %d servers, and one of its masters will be killed too.", len(d.cluster.Nodes))
	}
	d.story.line("%s", d.story.paint(dim, fmt.Sprintf("store %s, lease %s (10s by default): how soon a dead worker's tasks go to others",
		d.storeURL(), shortDuration(d.lease))))
	d.story.line("%s", d.story.paint(dim, levelText(d.client.Store().Capabilities())))
	d.story.line("")
}

// leave stops what still runs and clears the queue in a store that was there before.
func (d *demo) leave(ctx context.Context) error {
	d.killWorkers()
	if d.cluster != nil {
		return nil // it goes as a whole
	}
	change := driver.Change{Op: driver.OpCancel, Filter: driver.Filter{Queues: []string{d.queue}}}
	if _, err := applyAll(ctx, d.client, change, maxDemoTasks, func(int) {}); err != nil {
		return err
	}
	if _, err := d.client.Store().Maintain(ctx, 0); err != nil { // takes back what killed workers held
		return err
	}
	change.Op = driver.OpDelete
	_, err := applyAll(ctx, d.client, change, maxDemoTasks, func(int) {})
	return err
}

// addTasks enqueues the tasks. The second is the one whose worker will die.
func (d *demo) addTasks(ctx context.Context) error {
	others := min(demoTask, demoBudget*time.Duration(d.flags.workers)/time.Duration(d.flags.tasks))
	tasks := make([]waggle.NewTask, d.flags.tasks)
	hard := min(1, len(tasks)-1)
	for i := range tasks {
		kind := demoTitles[i%len(demoTitles)]
		work := others
		if i == hard {
			work = demoHardTask
		}
		tasks[i] = waggle.NewTask{
			Type: kind.typ, Payload: demoPayload{Title: kind.title, Work: work},
			Options: &waggle.EnqueueOptions{Queue: d.queue},
		}
	}
	d.story.begin()
	results, err := d.client.EnqueueBatch(ctx, tasks)
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Err != nil {
			return r.Err
		}
		d.ids, d.number[r.ID] = append(d.ids, r.ID), i+1
		if len(results) <= demoDetailed {
			d.story.event("queue", "+ %s", d.title(r.ID))
		}
	}
	if len(results) > demoDetailed {
		d.story.event("queue", "+ %s", plural(len(results), "task"))
	}
	d.victim = d.ids[hard]
	return nil
}

// title names a task for the story.
func (d *demo) title(id string) string {
	n := d.number[id]
	return fmt.Sprintf("%d %s", n, demoTitles[(n-1)%len(demoTitles)].title)
}

// watch follows the workers until every task has ended, and kills the one that holds the victim half way.
func (d *demo) watch(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- d.awaitAll(ctx) }()
	patience := time.NewTimer(demoPatience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			d.drainNews()
			return err
		case <-patience.C:
			return failf("nothing has happened for %s: the demo gives up", shortDuration(demoPatience))
		case n := <-d.news:
			patience.Reset(demoPatience)
			if err := d.tell(n); err != nil {
				return err
			}
		}
	}
}

func (d *demo) awaitAll(ctx context.Context) error {
	for _, id := range d.ids {
		for {
			_, err := d.client.Wait(ctx, id)
			if err == nil {
				break
			}
			if d.cluster == nil || !errors.Is(err, driver.ErrUnavailable) || ctx.Err() != nil {
				return err
			}
			if err := d.cluster.WaitOK(ctx); err != nil { // the shard is without a master for a moment
				return err
			}
		}
	}
	return nil
}

// drainNews tells what the workers said before the last task ended in the store.
func (d *demo) drainNews() {
	for {
		select {
		case n := <-d.news:
			_ = d.tell(n) // the tasks have ended: what is left is for the story only
		default:
			return
		}
	}
}

// tell takes one piece of news into the story.
func (d *demo) tell(n demoNews) error {
	detailed := len(d.ids) <= demoDetailed || n.ID == d.victim
	switch n.Kind {
	case newsStart:
		if n.ID == d.victim && d.killed != nil {
			d.recovery = n.at.Sub(d.killedAt)
			d.story.event(n.worker.name, "%s %s, %s after the kill", d.story.paint(green, "takes over"), d.title(n.ID), seconds(d.recovery))
		} else if detailed {
			d.story.event(n.worker.name, "starts %s", d.title(n.ID))
		}
	case newsHalf:
		if n.ID == d.victim && d.killed == nil {
			return d.kill(n.worker)
		}
	case newsDone:
		d.done++
		if detailed {
			d.story.event(n.worker.name, "%s %s", d.story.paint(green, "completes"), d.title(n.ID))
		} else if d.done%max(1, len(d.ids)/10) == 0 {
			d.story.event("queue", "%s of %s done", grouped(int64(d.done)), grouped(int64(len(d.ids))))
		}
	case newsGone:
		if n.worker != d.killed {
			return failf("%s ended by itself: %w", n.worker.name, n.err)
		}
	}
	return nil
}

func (d *demo) kill(w *demoWorker) error {
	d.killed, d.killedAt = w, time.Now()
	if err := w.cmd.Process.Kill(); err != nil {
		return failf("can't kill %s: %w", w.name, err)
	}
	d.story.event(w.name, "%s (pid %d), halfway through %s", d.story.paint(red, "is killed with SIGKILL"), w.cmd.Process.Pid, d.title(d.victim))
	return d.killMaster()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
