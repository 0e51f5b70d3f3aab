// Command bench measures Waggle beside asynq, River and BullMQ, on one machine, in one run, on servers it starts itself.
//
// It works in rounds. In every round each queue is measured once for each figure, one after the other and each time
// beginning with another one, so that whatever the machine is doing meanwhile meets all of them alike. Each
// measurement runs in a process of its own, on a store of its own that was empty before: a new Redis server, a new
// PostgreSQL database, a new SQLite file. A measurement counts only if the queue has handled exactly the tasks it was
// given, each once, and says itself that nothing is left.
//
// The samples go to a JSON file; the page with its tables and plots is rendered from that file alone:
//
//	go run . -rounds 5 -out ../docs/benchmarks.md    measure, then render
//	go run . -quick                                  a smoke test of about two minutes; prints the page
//	go run . -render -out ../docs/benchmarks.md      render again
//
// It needs redis-server, PostgreSQL's server programs, Node.js and the packages under bullmq (npm install --no-save). Everything runs
// on loopback ports and in a temporary directory, and is gone afterwards. CPU time and "die with the parent" need Linux.
package main
