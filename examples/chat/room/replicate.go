package room

import (
	"context"
	"errors"
	"time"

	"github.com/waggleq/waggle"
)

const (
	// storeAtOnce bounds what one write holds.
	storeAtOnce = 256
	// again is after what time a chunk is tried again that the database could not take.
	again = 100 * time.Millisecond
)

// Writer does the work of a worker: steps 3 and 4.
type Writer struct {
	by       string
	database Database
	store    gather[Chunk, Stored]
	join     gather[Message, int64]
}

// NewWriter returns the work of a worker of that name.
func NewWriter(db Database, by string) *Writer {
	w := &Writer{by: by, database: db}
	w.store = gather[Chunk, Stored]{most: storeAtOnce, batch: w.storeBatch}
	w.join = gather[Message, int64]{most: storeAtOnce / 8, batch: db.Append}
	return w
}

// Register makes the writer the handler of a worker's chunks.
func (w *Writer) Register(worker *waggle.Worker) {
	chunkTask.Handle(worker, func(ctx context.Context, _ *waggle.Task, c Chunk) error {
		return verdict(w.write(ctx, c))
	}, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: again, Cap: 2 * time.Second}})
}

// verdict tells the queue what to do with a chunk. That the database does not answer is no fault of the chunk: it costs no
// attempt. A chunk of a message whose id belongs to another is of no use to anybody.
func verdict(err error) error {
	switch {
	case errors.Is(err, ErrUnavailable):
		return waggle.Snooze(again)
	case errors.Is(err, ErrConflict):
		return waggle.Discard(err)
	}
	return err
}

// Step 3: the chunk is written to the database. When this returns, another node of it has the chunk too; and if it was the
// last of its message, the message is in the room's log.
func (w *Writer) write(ctx context.Context, c Chunk) error {
	stored, err := w.store.do(ctx, c.Room, c)
	switch {
	case err != nil:
		return err
	case stored.Conflict:
		return ErrConflict
	case stored.Number > 0 || stored.Count < c.Of:
		return nil
	}
	return w.assemble(ctx, c.Room, c.Head)
}

// storeBatch writes the chunks that several handlers have for one room.
func (w *Writer) storeBatch(ctx context.Context, room string, chunks []Chunk) ([]Stored, error) {
	stored, err := w.database.Store(ctx, room, chunks)
	if err != nil {
		return nil, err
	}
	hints := map[string]Hint{}
	for i, s := range stored {
		if c := chunks[i]; !s.Conflict && s.Number == 0 {
			known := hints[c.ID]
			hints[c.ID] = Hint{Kind: HintStored, By: w.by, ID: c.ID, Chunks: known.Chunks + 1, Stored: max(known.Stored, s.Count), Of: c.Of}
		}
	}
	for _, h := range hints {
		w.database.Hint(room, h)
	}
	return stored, nil
}
