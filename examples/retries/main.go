// Retries shows what a handler can say with its error: try again, try again at a certain time, or give up.
package main

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

// Call is the payload of the tasks.
type Call struct{ Customer string }

// The types of the tasks.
var (
	Flaky  = waggle.NewType[Call]("call.flaky")
	Busy   = waggle.NewType[Call]("call.busy")
	Broken = waggle.NewType[Call]("call.broken")
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	store, err := memstore.Open(nil)
	if err != nil {
		return err
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		return err
	}
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{
		UntilEmpty: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	handle(worker)
	var ids []string
	for _, call := range []waggle.Type[Call]{Flaky, Busy, Broken} {
		receipt, err := call.Enqueue(ctx, client, Call{Customer: "ada"})
		if err != nil {
			return err
		}
		ids = append(ids, receipt.ID)
	}
	if err := worker.Run(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		task, err := client.Get(ctx, id)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s after %d attempts: %s\n", task.Type, task.State, task.Attempt, task.Attempts[0].Error)
	}
	return client.Close(ctx)
}

func handle(worker *waggle.Worker) {
	// An error is a failed attempt: the task is tried again after a time that grows from failure to failure.
	Flaky.Handle(worker, func(_ context.Context, t *waggle.Task, _ Call) error {
		if t.Attempt < 3 {
			return errors.New("connection refused")
		}
		return nil
	}, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Millisecond, Cap: 10 * time.Millisecond}})

	// A service that names a time is asked again then.
	Busy.Handle(worker, func(_ context.Context, t *waggle.Task, _ Call) error {
		if t.Attempt == 1 {
			return waggle.RetryAfter(20*time.Millisecond, errors.New("too many requests"))
		}
		return nil
	})

	// What no attempt can mend is given up at once, and kept to be looked at.
	Broken.Handle(worker, func(_ context.Context, _ *waggle.Task, in Call) error {
		return waggle.Discard(fmt.Errorf("no customer is called %s", in.Customer))
	})
}
