// Quickstart adds a task, runs it, and waits for its result, all in one process. The store is in memory: with
// sqlitestore.Open in its place the client and the worker can be different programs.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

// Person is the payload of the tasks.
type Person struct {
	Name string `json:"name"`
}

// Welcome is the type of the tasks. Programs that enqueue them and programs that run them share this line.
var Welcome = waggle.NewType[Person]("email.welcome")

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
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{UntilEmpty: true})
	if err != nil {
		return err
	}
	Welcome.Handle(worker, func(_ context.Context, t *waggle.Task, in Person) error {
		return t.SetResult("Welcome, " + in.Name + "!")
	})

	receipt, err := Welcome.Enqueue(ctx, client, Person{Name: "Ada"})
	if err != nil {
		return err
	}
	if err := worker.Run(ctx); err != nil {
		return err
	}
	task, err := client.Wait(ctx, receipt.ID)
	if err != nil {
		return err
	}
	text, err := waggle.Result[string](task)
	if err != nil {
		return err
	}
	fmt.Println(text)
	return client.Close(ctx)
}
