package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

type Welcome struct{ Address string }

// A program that enqueues a task, runs it, and waits for its result.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	store, err := memstore.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		log.Fatal(err)
	}
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{Logger: silent})
	if err != nil {
		log.Fatal(err)
	}
	waggle.Handle(worker, "email.welcome", func(_ context.Context, t *waggle.Task, in Welcome) error {
		return t.SetResult("sent to " + in.Address)
	}, nil)
	stopped := make(chan error)
	go func() { stopped <- worker.Run(ctx) }()

	receipt, err := client.Enqueue(ctx, "email.welcome", Welcome{Address: "ada@example.com"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	info, err := client.Wait(ctx, receipt.ID)
	if err != nil {
		log.Fatal(err)
	}
	result, err := waggle.Result[string](info)
	fmt.Println(info.State, result, err)

	stop()
	fmt.Println(<-stopped)
	// Output:
	// completed sent to ada@example.com <nil>
	// <nil>
}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// exampleRun runs what is enqueued and returns the tasks as they are then, in the order of ids.
func exampleRun(h waggle.Handler, tasks ...waggle.NewTask) []*waggle.TaskInfo {
	ctx := context.Background()
	store, err := memstore.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		log.Fatal(err)
	}
	results, err := client.EnqueueBatch(ctx, tasks)
	if err != nil {
		log.Fatal(err)
	}
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{Logger: silent, AnyType: h, UntilEmpty: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
	infos := make([]*waggle.TaskInfo, len(results))
	for i, r := range results {
		if infos[i], err = client.Get(ctx, r.ID); err != nil {
			log.Fatal(err)
		}
	}
	return infos
}

// What a handler returns decides what becomes of its task.
func ExampleHandler() {
	infos := exampleRun(func(_ context.Context, t *waggle.Task) error {
		switch {
		case t.Type == "fails" && t.Attempt == 1:
			return waggle.RetryAfter(10*time.Millisecond, errors.New("busy"))
		case t.Type == "hopeless":
			return waggle.Discard(errors.New("no such customer"))
		case t.Type == "panics":
			panic("a bug")
		}
		return nil
	}, waggle.NewTask{Type: "works"}, waggle.NewTask{Type: "fails"}, waggle.NewTask{Type: "hopeless"},
		waggle.NewTask{Type: "panics", Options: &waggle.EnqueueOptions{MaxAttempts: 1}})
	for _, t := range infos {
		fmt.Printf("%s %s %d %q\n", t.Type, t.State, t.Attempt, t.LastError())
	}
	// Output:
	// works completed 1 ""
	// fails completed 2 "busy"
	// hopeless discarded 1 "no such customer"
	// panics discarded 1 "panic: a bug"
}

// Middleware wraps every handler of a worker.
func ExampleMiddleware() {
	timed := func(next waggle.Handler) waggle.Handler {
		return func(ctx context.Context, t *waggle.Task) error {
			err := next(ctx, t)
			fmt.Println(t.Type, "ended:", err)
			return err
		}
	}
	store, err := memstore.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{
		Logger: silent, UntilEmpty: true, Middleware: []waggle.Middleware{timed},
		Slots: 1, // else the mail may have ended before the report that asked for it has
	})
	if err != nil {
		log.Fatal(err)
	}
	waggle.Handle(worker, "report", func(ctx context.Context, t *waggle.Task, month string) error {
		_, err := t.Client().Enqueue(ctx, "mail", month, nil)
		return err
	}, nil)
	waggle.Handle(worker, "mail", func(context.Context, *waggle.Task, string) error { return nil }, nil)
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Enqueue(context.Background(), "report", "2026-01", nil); err != nil {
		log.Fatal(err)
	}
	if err := worker.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// report ended: <nil>
	// mail ended: <nil>
}

// A unique task is in the store once; enqueueing it again returns the one that is there.
func ExampleUniqueOptions() {
	store, err := memstore.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		log.Fatal(err)
	}
	opts := &waggle.EnqueueOptions{Unique: &waggle.UniqueOptions{Key: "invoice-7", Until: waggle.UntilDone}}
	for range 2 {
		r, err := client.Enqueue(context.Background(), "invoice.send", 7, opts)
		fmt.Println(r.State, r.Existing, err)
	}
	opts.Unique.OnConflict = waggle.ConflictReject
	_, err = client.Enqueue(context.Background(), "invoice.send", 7, opts)
	fmt.Println(errors.Is(err, waggle.ErrDuplicate))
	// Output:
	// available false <nil>
	// available true <nil>
	// true
}
