package robustness

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// log is what a process writes down of what it does: its calls of the store, and its handlers' runs.
type log struct {
	*history.Recorder
	claims claims
}

func openLog(path, process string) (*log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &log{Recorder: history.NewRecorder(f, process)}, nil
}

// wrap returns a store whose calls are written down.
func (l *log) wrap(s driver.Store) driver.Store {
	l.claims.Store = s
	return history.Wrap(&l.claims, l.Recorder)
}

// claims is a store that keeps the claims it has given, for the handlers' part of the history.
type claims struct {
	driver.Store
	mu    sync.Mutex
	given map[driver.Ref]driver.Claim
}

func (c *claims) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := c.Store.Fetch(ctx, req)
	if err == nil {
		c.keep(res.Claims)
	}
	return res, err
}

func (c *claims) Held(ctx context.Context, worker string) ([]driver.Claim, error) {
	held, err := c.Store.Held(ctx, worker)
	if err == nil {
		c.keep(held)
	}
	return held, err
}

func (c *claims) keep(list []driver.Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.given == nil {
		c.given = map[driver.Ref]driver.Claim{}
	}
	for _, claim := range list {
		c.given[driver.Ref{ID: claim.ID, Token: claim.Token}] = claim
	}
}

// take returns the claim that a handler runs on, and forgets it.
func (c *claims) take(t *waggle.Task) driver.Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	ref := driver.Ref{ID: t.ID, Token: driver.Token(t.Token())}
	claim, ok := c.given[ref]
	delete(c.given, ref)
	if !ok {
		panic("a handler runs on a claim that the store did not give: " + t.ID)
	}
	return claim
}

// check hands what all processes wrote down, and what the store holds, to the checker. All children must have ended.
func (s *site) check(opts *history.Options) {
	s.Helper()
	logs, err := filepath.Glob(filepath.Join(s.dir, "*.jsonl"))
	must(s, err)
	events, err := history.ReadFiles(logs...)
	must(s, err)
	dump, err := history.TakeDump(context.WithoutCancel(s.Context()), s.store)
	must(s, err)
	found := history.Check(events, dump, opts)
	for _, v := range found[:min(len(found), 20)] {
		s.Errorf("%s\n%s", v, story(events, v.ID))
	}
	if len(found) > 20 {
		s.Errorf("and %d more", len(found)-20)
	}
	s.Logf("checked %d events of %d processes, %d tasks", len(events), len(logs), len(dump.Records))
}

// story tells what was written down of a task.
func story(events []history.Event, id string) string {
	if id == "" {
		return ""
	}
	var b strings.Builder
	slices.SortFunc(events, func(x, y history.Event) int { return x.At.Compare(y.At) })
	for _, e := range events {
		if e.ID == id {
			line, _ := json.Marshal(e) // it was JSON before
			b.Write(append(line, '\n'))
		}
	}
	return b.String()
}
