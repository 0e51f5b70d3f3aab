package web

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/examples/chat/room"
)

const (
	// bodyMost is how long a message may take to arrive, and sendMost how long its chunks may take to be stored. The page
	// waits a little longer, then sends the message again.
	bodyMost = 5 * time.Second
	sendMost = 3 * time.Second
	// postsAtOnce bounds the memory for messages that are being taken.
	postsAtOnce = 256
)

// post takes a message: its text is the body, its id and author are in the query. The answer 202 means that it will be
// delivered. After 408, 429 and 503 it is to be sent again; sending it again, here or elsewhere, is harmless at any time.
func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	if wait := s.tooFast(r); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		fail(w, http.StatusTooManyRequests, "you write faster than the room takes it")
		return
	}
	select {
	case s.posting <- struct{}{}:
		defer func() { <-s.posting }()
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "too many messages arrive at once")
		return
	}
	text, status, err := body(w, r)
	if err != nil {
		fail(w, status, err.Error())
		return
	}
	m := &room.Message{ID: r.FormValue("id"), Author: r.FormValue("author"), At: time.Now().UTC(), Text: text}
	ctx, cancel := context.WithTimeout(r.Context(), sendMost)
	defer cancel()
	accepted, err := s.sender.Send(ctx, r.PathValue("room"), m)
	switch {
	case err == nil:
		reply(w, http.StatusAccepted, accepted)
	case errors.Is(err, room.ErrInvalid):
		fail(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, room.ErrConflict):
		fail(w, http.StatusConflict, err.Error())
	case errors.Is(err, driver.ErrNotDurable):
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "no second node of the database has the message yet")
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "the database does not answer")
	}
}

// tooFast says how long a client has to wait, if it does.
func (s *Server) tooFast(r *http.Request) time.Duration {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	client := r.Header.Get(clientHeader)
	now := time.Now()
	if wait := s.addresses.take(host, now); wait > 0 {
		return wait
	}
	return s.clients.take(host+" "+client[:min(len(client), 64)], now)
}

// body reads a text of bounded length that arrives in bounded time.
func body(w http.ResponseWriter, r *http.Request) (text string, status int, err error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyMost)) // every connection has one
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, room.MaxText))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return "", http.StatusRequestEntityTooLarge, errors.New("the message is longer than 64 KiB")
	case err != nil:
		return "", http.StatusRequestTimeout, errors.New("the message did not arrive whole in time")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return string(b), 0, nil
}
