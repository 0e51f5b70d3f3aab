package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// maxBody bounds what a service reads and a café reads of it.
const maxBody = 64 << 10

// answer registers a function from JSON to a status and JSON.
func answer[In, Out any](mux *http.ServeMux, pattern string, f func(In) (int, Out)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		status, out := f(in)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out) // the caller may be gone
	})
}

// serveHTTP serves a service on a free port, whose address it tells, until ctx ends.
func serveHTTP(ctx context.Context, routes func(*http.ServeMux), tell func(News)) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	routes(mux)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve says how it ended
	defer stop()
	tell(News{Kind: newsReady, Addr: l.Addr().String()})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// patience is how long a café waits for a service.
const patience = 800 * time.Millisecond

// caller calls one service.
type caller struct {
	name, addr string
	client     *http.Client
}

func newCaller(name, addr string) *caller {
	return &caller{name, addr, &http.Client{Timeout: patience}}
}

// call sends in and reads the answer into out. The status is one of those that the service's answers have.
func (c *caller) call(ctx context.Context, path string, in, out any) (status int, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s does not answer: %w", c.name, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusBadRequest || res.StatusCode >= http.StatusInternalServerError {
		return 0, fmt.Errorf("%s answers %s", c.name, res.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, maxBody)).Decode(out); err != nil {
		return 0, fmt.Errorf("%s answers nonsense: %w", c.name, err)
	}
	return res.StatusCode, nil
}
