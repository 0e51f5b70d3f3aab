package room

import (
	"context"
	"errors"
)

// What a database can answer.
var (
	// ErrConflict: the message's id was used for another text.
	ErrConflict = errors.New("this id belongs to another message")
	// ErrUnavailable: the database can't be reached, or too few of its nodes have what was written. The outcome is unknown,
	// and doing the same again is safe.
	ErrUnavailable = errors.New("the database does not answer")
)

// Database holds the rooms: for each the chunks of messages that are on their way, and the log of those that are complete.
// All methods may be called concurrently. What one has written when it returns nil is safe: on another node too, where
// there are others, else on disk.
type Database interface {
	// Announce notes the head of a message that is going to be stored. It returns the message's number if it has one
	// already, and ErrConflict if its id belongs to another message.
	Announce(ctx context.Context, room string, h Head) (number int64, err error)
	// Store writes chunks, of one room. Writing one again changes nothing. The results are parallel to the chunks.
	Store(ctx context.Context, room string, chunks []Chunk) ([]Stored, error)
	// Chunks returns the texts of a message's chunks, in order; nil if the message has its number already.
	Chunks(ctx context.Context, room string, h Head) ([]string, error)
	// Append gives messages the room's next numbers and enters them in its log, in one step each. A message that has a
	// number keeps it, and nothing is entered. The numbers are parallel to the messages.
	Append(ctx context.Context, room string, messages []Message) ([]int64, error)
	// Log returns the entries that follow a number, the oldest first and at most so many, as far as they are safe: an entry
	// that was returned once keeps its number for good, whatever node fails.
	Log(ctx context.Context, room string, after int64, most int) ([]Entry, error)
	// Length is the number of the last entry that Log would return.
	Length(ctx context.Context, room string) (int64, error)
	// Watch calls f with hints that something happened in a room, until ctx ends. Hints may be late or lost: they make the
	// chat quick, and the picture move, and nothing depends on them.
	Watch(ctx context.Context, room string, f func(Hint))
	// Hint tells those that watch. It does not wait.
	Hint(room string, h Hint)
	Close() error
}

// Stored is what became of a chunk.
type Stored struct {
	Count    int   // how many chunks of its message are stored, if it was the last of them in the call
	Number   int64 // of the message, if it has been put together
	Conflict bool  // the message's id belongs to another message: nothing was written
}

// HintKind says what happened.
type HintKind string

// The kinds of hints.
const (
	HintSent   HintKind = "sent"   // By, a web server, has put the chunks of a message into the queue
	HintStored HintKind = "stored" // By, a worker, has written Chunks of a message, of which Stored are stored now
	HintLog    HintKind = "log"    // the log has grown
)

// Hint is something that happened in a room.
type Hint struct {
	Kind   HintKind `json:"kind"`
	By     string   `json:"by,omitzero"`
	ID     string   `json:"id,omitzero"`
	Chunks int      `json:"chunks,omitzero"`
	Stored int      `json:"stored,omitzero"`
	Of     int      `json:"of,omitzero"`
}
