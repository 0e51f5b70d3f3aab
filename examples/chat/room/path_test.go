package room

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/waggleq/waggle"
)

// A message goes the whole way: cut, through the queue, into the database, together again, to every reader.
func TestPath(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, storeURL string) {
		p := openPlace(t, storeURL)
		startWorker(t, storeURL)
		a := &Sender{Client: p.Client, Database: p.Database, Level: p.Level, By: "A1"}
		follower := &Follower{Database: p.Database}
		reader := follower.Open("lobby", 0)
		defer reader.Close()

		texts := []string{"x", strings.Repeat("🐝é\x00", MaxText/7), "<b>&\u202e"}
		var wg sync.WaitGroup
		for i, text := range texts {
			wg.Go(func() {
				m := &Message{ID: fmt.Sprint("m", i), Author: "Ada", Text: text}
				for range 2 { // the second is a repetition
					if _, err := a.Send(t.Context(), "lobby", m); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		_, err := a.Send(t.Context(), "lobby", &Message{ID: "m0", Author: "Ada", Text: "another"})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("the same id with another text: %v", err)
		}
		got := map[string]string{}
		for i, e := range readAll(t, reader, len(texts)) {
			if got[e.ID] = e.Text; e.Number != int64(i)+1 {
				t.Errorf("message %d has number %d", i+1, e.Number)
			}
		}
		for i, text := range texts {
			if got[fmt.Sprint("m", i)] != text {
				t.Errorf("message %d arrived as %.40q", i, got[fmt.Sprint("m", i)])
			}
		}
		late := follower.Open("lobby", 1) // goes on after the first
		defer late.Close()
		if e := readAll(t, late, 2); e[0].Number != 2 || e[1].Number != 3 {
			t.Errorf("after 1 come %d and %d", e[0].Number, e[1].Number)
		}
	})
}

func startWorker(t *testing.T, storeURL string) {
	t.Helper()
	p := openPlace(t, storeURL)
	worker, err := waggle.NewWorker(p.Store, &waggle.WorkerOptions{Queues: []waggle.Queue{{Name: Queue}}})
	if err != nil {
		t.Fatal(err)
	}
	NewWriter(p.Database, "W1").Register(worker)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// readAll reads until there are n entries.
func readAll(t *testing.T, r *Reader, n int) (all []Entry) {
	t.Helper()
	for len(all) < n {
		entries, grown, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, entries...); len(entries) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-t.Context().Done():
			t.Fatalf("%d of %d entries came", len(all), n)
		}
	}
	return all
}
