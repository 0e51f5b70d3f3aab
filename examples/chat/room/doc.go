// Package room is the path that a message of the chat takes. Each step has a file of its own:
//
//	chunk.go      1  a web server cuts the message into small chunks
//	enqueue.go    2  the chunks go through the queue, as tasks, to the database
//	replicate.go  3  a worker writes each chunk into the database, whose nodes replicate it
//	assemble.go   4  whoever wrote the last chunk puts the message together and enters it in the room's log
//	deliver.go    5  every web server follows the log and has new messages for its users
//
// Every step may be repeated, by anybody, at any time: the ids of messages and chunks see to it that a message is entered
// once. So a process that dies in the middle of a step costs time and nothing else: the queue gives its tasks to others.
//
// What has to be atomic is in the database: database.go says what it offers, redis.go and sqlite.go are the two of them.
package room
