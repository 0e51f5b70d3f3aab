package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/waggleq/waggle"
)

// chunkTask is the type of the tasks: each writes a chunk.
var chunkTask = waggle.NewType[Chunk]("chat.chunk")

const (
	// Queue is the queue of the chunks.
	Queue = "chat"
	// patience is how often a chunk may fail, and how many workers may die with it, before it is given up: far more than
	// any run of bad luck, since a message that lacks a chunk is a message lost.
	patience = 10_000
	// headKept is how long a message is remembered whose sender never came back to finish sending it.
	headKept = 24 * time.Hour
)

// Accepted is what the sender of a message is told.
type Accepted struct {
	ID     string `json:"id"`
	Chunks int    `json:"chunks"`
	// Number is the message's place in the room if it has one already: it was sent before.
	Number int64             `json:"number,omitzero"`
	Level  waggle.Durability `json:"level"` // at which the chunks are stored
}

// Sender takes messages, on behalf of a web server.
type Sender struct {
	Client   *waggle.Client
	Database Database
	Level    waggle.Durability
	By       string // the name of the web server, for the picture
}

// Send is steps 1 and 2: it breaks a message into chunks and routes them to the database through the queue. When it returns
// nil, the message will be delivered. After any other error than ErrInvalid and ErrConflict the outcome is unknown, and
// sending the message again, here or through another web server, is safe.
func (s *Sender) Send(ctx context.Context, room string, m *Message) (Accepted, error) {
	if err := errors.Join(CheckName(room), m.Validate()); err != nil {
		return Accepted{}, err
	}
	head, chunks := split(room, m)
	accepted := Accepted{ID: m.ID, Chunks: head.Of, Level: s.Level}
	// An id that was used for another text is refused here, before anything of it is in the queue.
	number, err := s.Database.Announce(ctx, room, head)
	if err != nil {
		return Accepted{}, err
	}
	if accepted.Number = number; number > 0 {
		return accepted, nil
	}
	s.Database.Hint(room, Hint{Kind: HintSent, By: s.By, ID: m.ID, Of: head.Of})
	return accepted, s.enqueue(ctx, chunks)
}

// Step 2: one batch of tasks, whose ids are made of room, message and number: a chunk that is sent again is the same task.
func (s *Sender) enqueue(ctx context.Context, chunks []Chunk) error {
	tasks := make([]waggle.NewTask, len(chunks))
	for i, c := range chunks {
		tasks[i] = chunkTask.New(c, &waggle.EnqueueOptions{
			ID:    c.Room + ":" + c.ID + ":" + strconv.Itoa(c.N),
			Queue: Queue, Durability: s.Level, MaxAttempts: patience, CrashLimit: patience,
		})
	}
	results, err := s.Client.EnqueueBatch(ctx, tasks)
	for _, r := range results {
		if err == nil {
			err = r.Err
		}
	}
	return err
}

// StrongestLevel is the strongest durability level that a store offers.
func StrongestLevel(client *waggle.Client) (waggle.Durability, error) {
	levels := client.Store().Capabilities().Durability
	for _, level := range slices.Backward(levels) { // weakest first
		return level, nil
	}
	return "", fmt.Errorf("the store %s names no durability level", client.Store().Capabilities().Engine)
}
