// Package web is a web server of the chat: it takes messages and delivers them. Any number of them may run, and any may die:
// what one has in memory it has read from the database, and another can read it too.
package web

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/examples/chat/room"
	"github.com/waggleq/waggle/examples/chat/wire"
)

const (
	// clientHeader names a client, for the limits; controlHeader has to come with what is done to a node, and no other
	// site's page can send it.
	clientHeader  = "X-Chat-Client"
	controlHeader = "X-Chat-Control"

	headMost = 5 * time.Second
	stopMost = 2 * time.Second
)

//go:embed page
var page embed.FS

// Server is one web server.
type Server struct {
	role     *wire.Role
	sender   *room.Sender
	follower *room.Follower
	stage    *Stage
	moves    *board
	hosts    []string
	origins  []string

	clients, addresses buckets
	posting            chan struct{} // holds one for each message that is being taken
	users              atomic.Int64
}

// New returns a web server on a place.
func New(role *wire.Role, place *room.Place, stage *Stage) *Server {
	s := &Server{
		role: role, stage: stage, moves: newBoard(),
		sender:    &room.Sender{Client: place.Client, Database: place.Database, Level: place.Level, By: role.Name},
		clients:   buckets{rate: clientRate, burst: clientBurst},
		addresses: buckets{rate: addressRate, burst: addressBurst},
		posting:   make(chan struct{}, postsAtOnce),
	}
	s.follower = &room.Follower{Database: place.Database, Hints: s.moves.put}
	s.allow()
	return s
}

// Users is how many streams of events are open.
func (s *Server) Users() int { return int(s.users.Load()) }

// Handler returns the server's routes.
func (s *Server) Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // it is in the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /about", s.about)
	mux.HandleFunc("POST /rooms/{room}/messages", s.post)
	mux.HandleFunc("GET /rooms/{room}/events", s.events)
	mux.HandleFunc("POST /nodes/{node}/{action}", s.control)
	return s.guard(mux)
}

// about tells the page where it is.
func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{
		"name": s.role.Name, "room": s.role.Room, "peers": s.role.Peers, "level": s.sender.Level, "limit": room.MaxText,
		"author": room.MaxAuthor, "control": s.stage != nil,
	})
}

// Serve listens on the server's port until ctx ends.
func (s *Server) Serve(ctx context.Context, ready func()) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.role.Port)))
	if err != nil {
		return err
	}
	h := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headMost, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	ready()
	select {
	case err := <-served:
		return err
	case <-ctx.Done(): // the event streams end with it
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopMost)
	defer cancel()
	return errors.Join(h.Shutdown(stop), h.Close())
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever asked is gone
}

// fail answers with a sentence for the person who asked.
func fail(w http.ResponseWriter, status int, text string) {
	reply(w, status, map[string]string{"error": text})
}
