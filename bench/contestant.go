package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// contestant is a queue under measurement, connected to its store. All methods may be called concurrently.
type contestant interface {
	// Enqueue hands in one task and returns when the queue has accepted it.
	Enqueue(ctx context.Context, m message) error
	// EnqueueBatch hands in many in the way the queue's documentation recommends; errNoBulk if it has none.
	EnqueueBatch(ctx context.Context, ms []message) error
	// Work starts one worker that calls handle for every task, up to slots at once (0: the queue's default), and
	// returns when it is running. stop ends it the queue's graceful way.
	Work(ctx context.Context, slots int, handle func(message)) (stop func() error, err error)
	// Left returns how many tasks have not ended, as the queue itself counts them.
	Left(ctx context.Context) (int, error)
	// Close releases the connections.
	Close() error
}

// errNoBulk is returned by contestants that can only enqueue one by one.
var errNoBulk = errors.New("this queue has no bulk enqueue")

// storeKind names what a contestant keeps its tasks in.
type storeKind string

const (
	redisStore    storeKind = "redis"
	postgresStore storeKind = "postgres"
	sqliteStore   storeKind = "sqlite"
)

// spec describes a contestant. What it says is printed on the page.
type spec struct {
	name  string // in flags and results
	label string // on the page
	store storeKind
	open  func(ctx context.Context, url string) (contestant, error) // nil: a Node.js program

	ours  bool // Waggle
	limit bool // not a queue: the least that could be done on this store; enqueue, processing and bytes only

	only         []measure // nil: all that apply
	noBulk       bool
	defaultSlots int           // tasks at once if the user says nothing
	defaultNote  string        // where that default comes from
	idlePoll     time.Duration // how often an idle worker looks, if that is how it finds work

	module   string // Go module or npm package whose version is reported
	settings string // one sentence
	recovery string // what its documentation or source says of a killed worker's tasks
}

// product is the label without what follows a comma.
func (s *spec) product() string {
	name, _, _ := strings.Cut(s.label, ",")
	return name
}

// measures returns what is measured of it, in the order of the page.
func (s *spec) measures() []measure {
	return slices.DeleteFunc(slices.Clone(allMeasures), func(m measure) bool {
		switch {
		case s.only != nil && !slices.Contains(s.only, m):
			return true
		case m == bulk:
			return s.noBulk
		case m == workDefault:
			return s.limit || s.defaultSlots == manySlots
		}
		return s.limit && (m == pickup || m == recovery)
	})
}

// contestants lists all, in the order of the page.
func contestants() []*spec {
	all := waggleSpecs()
	return append(all, asynqSpec(), bullmqSpec(), riverSpec(), riverTunedSpec(), redisScriptSpec(), redisListSpec())
}

// find returns the specs with these names, or all for none.
func find(names []string) ([]*spec, error) {
	all := contestants()
	if len(names) == 0 {
		return all, nil
	}
	var found []*spec
	for _, name := range names {
		i := slices.IndexFunc(all, func(s *spec) bool { return s.name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("unknown contestant %q: there are %q", name, known)
		}
		found = append(found, all[i])
	}
	return found, nil
}

// measure names one figure.
type measure string

const (
	single       measure = "single"
	bulk         measure = "bulk"
	workDefault  measure = "work_default"
	work100      measure = "work_100"
	pickup       measure = "pickup"
	bytesPerTask measure = "bytes"
	recovery     measure = "recovery"
)

// allMeasures is in the order of a round; recovery follows at the end.
var allMeasures = []measure{single, bulk, workDefault, work100, pickup, bytesPerTask, recovery}

// manySlots is the concurrency at which all workers are compared.
const manySlots = 100
