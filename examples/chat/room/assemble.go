package room

import (
	"context"
	"fmt"
	"strings"
)

// Step 4: the message is put together again and gets the room's next number. Two workers may come here with the same
// message, and one that died here is repeated by another: the log has it once.
func (w *Writer) assemble(ctx context.Context, room string, h Head) error {
	chunks, err := w.database.Chunks(ctx, room, h)
	if err != nil || chunks == nil { // nil: somebody else was faster
		return err
	}
	m := Message{ID: h.ID, Author: h.Author, At: h.At, Text: strings.Join(chunks, "")}
	if m.sum() != h.Sum {
		return fmt.Errorf("the %d chunks of message %s do not make the message that was sent", h.Of, h.ID)
	}
	_, err = w.join.do(ctx, room, m)
	return err
}
