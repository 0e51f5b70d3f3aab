package room

import (
	"time"
	"unicode/utf8"
)

// chunkBytes is the most that a chunk holds of a message.
const chunkBytes = 64

// Head is what is known of a message before its text is complete.
type Head struct {
	ID     string    `json:"id"`
	Author string    `json:"author"`
	At     time.Time `json:"at"`
	Of     int       `json:"of"`  // chunks
	Sum    string    `json:"sum"` // of author and text
}

// Chunk is a piece of a message, with what it takes to put the message together again.
type Chunk struct {
	Room string `json:"room"`
	Head
	N    int    `json:"n"` // from 0
	Text string `json:"chunk"`
}

// Step 1: the message is broken into chunks of at most 64 bytes, cut between characters.
func split(room string, m *Message) (Head, []Chunk) {
	texts := cut(m.Text)
	head := Head{ID: m.ID, Author: m.Author, At: m.At, Of: len(texts), Sum: m.sum()}
	chunks := make([]Chunk, len(texts))
	for n, text := range texts {
		chunks[n] = Chunk{Room: room, Head: head, N: n, Text: text}
	}
	return head, chunks
}

// cut returns the pieces of a text that is valid UTF-8.
func cut(text string) []string {
	var pieces []string
	for len(text) > chunkBytes {
		end := chunkBytes
		for !utf8.RuneStart(text[end]) {
			end--
		}
		pieces, text = append(pieces, text[:end]), text[end:]
	}
	return append(pieces, text)
}
