package room

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What a message may be.
const (
	MaxText   = 64 << 10 // bytes
	MaxAuthor = 40       // characters
)

// ErrInvalid is wrapped by the errors of what breaks a rule. Their texts are for the person who wrote it.
var ErrInvalid = errors.New("invalid")

func invalidf(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return ErrInvalid }

// Message is what somebody wrote. Its ID is made by whoever sends it, so that sending it again is harmless.
type Message struct {
	ID     string    `json:"id"`
	Author string    `json:"author"`
	At     time.Time `json:"at"` // when a web server first took it, by that server's clock; only shown
	Text   string    `json:"text"`
}

// Entry is a message in the room's log. The numbers of a room are 1, 2, 3, … without gaps.
type Entry struct {
	Number int64 `json:"number"`
	Message
}

// Validate says what is wrong with a message, if anything is.
func (m *Message) Validate() error {
	switch {
	case !isName(m.ID, 64):
		return invalidf("the id of a message has 1 to 64 of the characters A-Z, a-z, 0-9, - and _")
	case m.Author == "":
		return invalidf("say who you are: the name is empty")
	case !utf8.ValidString(m.Author) || strings.ContainsFunc(m.Author, unicode.IsControl):
		return invalidf("the name has characters that can't be shown")
	case utf8.RuneCountInString(m.Author) > MaxAuthor:
		return invalidf("the name has %d characters, %d are allowed", utf8.RuneCountInString(m.Author), MaxAuthor)
	case m.Text == "":
		return invalidf("the message is empty")
	case len(m.Text) > MaxText:
		return invalidf("the message is longer than 64 KiB")
	case !utf8.ValidString(m.Text):
		return invalidf("the message is not valid UTF-8")
	}
	return nil
}

// CheckName returns an error for what can't be the name of a room.
func CheckName(room string) error {
	if !isName(room, 32) {
		return invalidf("the name of a room has 1 to 32 of the characters A-Z, a-z, 0-9, - and _")
	}
	return nil
}

func isName(s string, most int) bool {
	outside := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, outside)
}

// sum is what tells a repeated message from another one with the same id.
func (m *Message) sum() string {
	h := sha256.Sum256([]byte(m.Author + "\x00" + m.Text)) // a name holds no NUL
	return hex.EncodeToString(h[:16])
}
