// Package crowd is a crowd of users of the chat without a browser: they do what the page does, and note what they see. The
// bench and the tests use it.
package crowd

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/room"
)

// How a user behaves, as the page does.
const (
	answerMost = 4 * time.Second        // for an answer to a message; then it is sent again, to the other server
	silentMost = 3 * time.Second        // without a sign of life from a server
	pause      = 200 * time.Millisecond // between two tries
)

// User is a client with an address of each web server. It uses one and goes on with the other when that does not answer.
type User struct {
	Name    string
	Room    string
	Servers []string // URLs; the first is preferred
	History *check.History
	// OnSeen is called for each message that the user sees, in order.
	OnSeen func(room.Entry)

	client http.Client
	once   sync.Once

	mu   sync.Mutex
	at   int // which server
	last int64
}

func (u *User) init() {
	u.once.Do(func() { u.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true} })
}

// Close ends the user's idle connections.
func (u *User) Close() { u.init(); u.client.CloseIdleConnections() }

func (u *User) server() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.Servers[u.at]
}

// leave goes on with the other server, if nobody has meanwhile.
func (u *User) leave(server string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.Servers[u.at] == server {
		u.at = (u.at + 1) % len(u.Servers)
	}
}

// NewID returns an id for a message.
func NewID() string { return rand.Text() }

// Send sends a message until it is accepted or refused, or ctx ends.
func (u *User) Send(ctx context.Context, id, text string) error {
	u.init()
	u.History.Sent(id, u.Name, text)
	for {
		server := u.server()
		again, err := u.try(ctx, server, id, text)
		if err == nil {
			u.History.Accepted(id)
			return nil
		}
		if !again || ctx.Err() != nil {
			return fmt.Errorf("message %s: %w", id, err)
		}
		u.leave(server)
		if sleep(ctx, pause) != nil {
			return fmt.Errorf("message %s: %w", id, err)
		}
	}
}

// try sends a message once, and says whether it may be sent again.
func (u *User) try(ctx context.Context, server, id, text string) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerMost)
	defer cancel()
	query := url.Values{"id": {id}, "author": {u.Name}}
	at := server + "/rooms/" + url.PathEscape(u.Room) + "/messages?" + query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(text))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r.Header.Set("X-Chat-Client", u.Name)
	answer, err := u.client.Do(r)
	if err != nil {
		return true, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	switch {
	case answer.StatusCode == http.StatusAccepted && err == nil:
		return false, nil
	case answer.StatusCode == http.StatusTooManyRequests:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return true, cmpError(sleep(ctx, time.Duration(seconds)*time.Second), "too fast")
	}
	return answer.StatusCode >= 500 || err != nil, fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(said)))
}

func cmpError(err error, text string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s", text)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Listen reads the room until ctx ends, from whichever server lives.
func (u *User) Listen(ctx context.Context) {
	u.init()
	u.History.Joined(u.Name)
	for ctx.Err() == nil {
		server := u.server()
		_ = u.listen(ctx, server) // however it ended: on to the other
		u.leave(server)
		_ = sleep(ctx, pause) // see the loop
	}
}

func (u *User) listen(ctx context.Context, server string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(silentMost, func() { cancel(fmt.Errorf("%s is silent", server)) })
	defer alarm.Stop()
	at := server + "/rooms/" + url.PathEscape(u.Room) + "/events"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Last-Event-ID", strconv.FormatInt(u.last, 10))
	answer, err := u.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	return events(answer.Body, func(name, data string) error {
		alarm.Reset(silentMost)
		if name != "message" {
			return nil
		}
		var e room.Entry
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return err
		}
		u.saw(e)
		return nil
	})
}

func (u *User) saw(e room.Entry) {
	u.last = e.Number
	u.History.Saw(u.Name, e.Number, e.ID, e.Author, e.Text)
	if u.OnSeen != nil {
		u.OnSeen(e)
	}
}

// events reads Server-Sent Events.
func events(r io.Reader, f func(name, data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 8*room.MaxText) // NUL takes six bytes in JSON
	name := ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			if err := f(name, value); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}
