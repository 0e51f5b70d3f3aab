// Package check proves a run of the chat: it reads what the clients were told and what they saw, and finds every message that
// was lost, came twice, came in another order than to others, or came changed.
package check

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// mostFaults bounds the list of a report.
const mostFaults = 20

// History is what the clients of one room were told and saw. It may be written to concurrently.
type History struct {
	mu       sync.Mutex
	sent     map[string][32]byte // every message that was tried to send: the sum of author and text
	accepted map[string]bool
	seen     map[string][]sight // by user
}

// sight is a message as a user saw it.
type sight struct {
	number int64
	id     string
	sum    [32]byte
}

// NewHistory returns an empty history.
func NewHistory() *History {
	return &History{sent: map[string][32]byte{}, accepted: map[string]bool{}, seen: map[string][]sight{}}
}

func sumOf(author, text string) [32]byte { return sha256.Sum256([]byte(author + "\x00" + text)) }

// Sent notes a message before it is sent for the first time.
func (h *History) Sent(id, author, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[id] = sumOf(author, text)
}

// Accepted notes that a client was told that its message will be delivered.
func (h *History) Accepted(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accepted[id] = true
}

// Joined notes a user who has to see everything, from the first message on.
func (h *History) Joined(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[user] == nil {
		h.seen[user] = []sight{}
	}
}

// Saw notes what a user was shown, in the order in which it was.
func (h *History) Saw(user string, number int64, id, author, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[user] = append(h.seen[user], sight{number, id, sumOf(author, text)})
}

// Complete reports whether every user has seen every accepted message.
func (h *History) Complete() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, sights := range h.seen {
		if len(sights) < len(h.accepted) {
			return false
		}
		has := make(map[string]bool, len(sights))
		for _, s := range sights {
			has[s.id] = true
		}
		for id := range h.accepted {
			if !has[id] {
				return false
			}
		}
	}
	return true
}

// Report says what a history shows.
type Report struct {
	Messages   int // accepted
	Delivered  int // accepted, and seen by every user
	Lost       int // accepted, and not seen by some user
	Duplicated int // sights of a message that the user had seen before
	OutOfOrder int // sights out of the room's order, or in another order than another user's
	Changed    int // sights of what nobody has sent
	// Faults are the first of them in words.
	Faults []string
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return r.Lost+r.Duplicated+r.OutOfOrder+r.Changed == 0 }

func (r *Report) fault(count *int, format string, args ...any) {
	*count++
	if len(r.Faults) < mostFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// Check reads the history, when all is quiet.
func (h *History) Check() *Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &Report{Messages: len(h.accepted)}
	missed := map[string]bool{}
	room := map[int64]string{} // who has which number, by whoever saw it first
	for user, sights := range h.seen {
		has := h.checkUser(r, user, sights, room)
		for id := range h.accepted {
			if !has[id] && !missed[id] {
				missed[id] = true
				r.fault(&r.Lost, "%s never saw message %s", user, id)
			}
		}
	}
	if r.Delivered = r.Messages - len(missed); len(h.seen) == 0 {
		r.Delivered = 0
	}
	return r
}

func (h *History) checkUser(r *Report, user string, sights []sight, room map[int64]string) (has map[string]bool) {
	has = map[string]bool{}
	last := int64(0)
	for _, s := range sights {
		sum, known := h.sent[s.id]
		switch {
		case !known || sum != s.sum:
			r.fault(&r.Changed, "%s saw message %s, number %d, as nobody has sent it", user, s.id, s.number)
		case has[s.id]:
			r.fault(&r.Duplicated, "%s saw message %s again, as number %d", user, s.id, s.number)
		case s.number != last+1:
			r.fault(&r.OutOfOrder, "%s saw number %d after %d", user, s.number, last)
		case room[s.number] != "" && room[s.number] != s.id:
			r.fault(&r.OutOfOrder, "%s saw message %s as number %d, which is %s to another", user, s.id, s.number, room[s.number])
		}
		has[s.id], last = true, s.number
		if room[s.number] == "" {
			room[s.number] = s.id
		}
	}
	return has
}
