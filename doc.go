// Package waggle is a distributed task queue: clients put tasks into a store, workers run them.
//
// What it promises, on every store:
//
//   - Accepted means stored, at the durability level that the receipt names; never silently at a lower one.
//   - At least once: an accepted task runs until it ends in completed, cancelled or discarded.
//   - One accepted outcome: a worker that lost its lease changes nothing any more.
//   - A worker that dies loses its tasks to others within its lease, and that costs them no attempt.
//   - A task never starts before its time.
//   - Nothing hidden: no time limit that kills unasked, no unknown type that burns attempts, no dead letter that is
//     deleted silently.
//
// A program that does both, on the store it was given:
//
//	var Welcome = waggle.NewType[Person]("email.welcome") // the type's name and its payload, once for all programs
//	…
//	client, err := waggle.NewClient(store, nil)
//	…
//	worker, err := waggle.NewWorker(store, nil)
//	…
//	Welcome.Handle(worker, func(ctx context.Context, t *waggle.Task, in Person) error {
//		return send(ctx, in.Address)
//	})
//	_, err = Welcome.Enqueue(ctx, client, Person{Address: "ada@example.com"})
//	…
//	err = worker.Run(ctx) // until ctx ends
//
// A [Type] is the short form; [Handle] and [Client.Enqueue] take the type's name as a string. A [Client] enqueues
// ([Client.Enqueue], [Client.EnqueueBatch]), waits for results ([Client.Wait], [Result]), and
// inspects and operates queues. A [Worker] runs handlers ([Handle]) until its context ends. What a handler returns is its
// verdict: see [Handler]. Package stores opens a store by its URL, and each engine's package (sqlitestore, redisstore, memstore)
// its own; package waggletest helps to test handlers.
//
// # Errors
//
// An error says which operation failed and why, and wraps one of the errors below: [ErrInvalid] and the rest. Whatever
// calls the store can return [ErrUnavailable], [ErrCorrupt], [ErrClosed], or why its context ended; the comments name
// what comes beside these. NewClient, NewWorker and all that takes names, options or filters return [ErrInvalid] for
// those that break a rule, and have changed nothing then.
//
// The receiver of a method must not be nil. NewClient and NewWorker return nil with an error; as elsewhere in Go, a call on it panics, in
// the caller's goroutine and with nothing done.
//
// # Further reading
//
// In the folder docs of the repository: guarantees.md has each promise with its fine print and its tests; enqueueing.md,
// handling.md, operating.md and testing.md go through what this package offers; cli.md is the command.
package waggle
