package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// obstacle says why an available task is not running.
type obstacle struct {
	Kind string `json:"kind"` // paused, no_worker, no_worker_for_queue, no_worker_for_type, breaker, limit, quiet or busy
	Text string `json:"text"` // the same for people
}

// crew is what is known of the workers, to tell what keeps a task waiting.
type crew struct {
	alive []waggle.WorkerStatus
	shut  map[string]string // by type, why its breaker lets nothing start
}

// newCrew keeps the workers whose lease has not run out at now, the store's present.
func newCrew(workers []waggle.WorkerStatus, now time.Time) *crew {
	return &crew{alive: slices.DeleteFunc(slices.Clone(workers), func(w waggle.WorkerStatus) bool { return !w.LeaseEnd.After(now) })}
}

// readCrew asks the store for its workers.
func readCrew(ctx context.Context, c *waggle.Client, now time.Time) (*crew, error) {
	workers, err := c.Workers(ctx)
	if err != nil {
		return nil, err
	}
	found := newCrew(workers, now)
	found.shut, err = shutTypes(ctx, c, now)
	return found, err
}

// shutTypes returns the types whose breakers are not closed, and why.
func shutTypes(ctx context.Context, c *waggle.Client, now time.Time) (map[string]string, error) {
	types, err := c.Types(ctx)
	if errors.Is(err, driver.ErrUnsupported) {
		return nil, nil
	}
	shut := map[string]string{}
	for _, t := range types {
		if t.State != waggle.BreakerClosed {
			row := typeRowOf(t)
			shut[t.Type] = fmt.Sprintf("the breaker of type %s is %s: %s", t.Type, t.State, row.whyText(now))
		}
	}
	return shut, err
}

// obstacle returns what keeps an available task of a type in a queue from running, nil if nothing is in sight: a worker
// with a free slot serves it.
func (c *crew) obstacle(config driver.QueueConfig, queue, typ string) *obstacle {
	if config.Paused {
		return &obstacle{"paused", "queue " + queue + " is paused"}
	}
	if why := c.shut[typ]; why != "" {
		return &obstacle{"breaker", why}
	}
	if len(c.alive) == 0 {
		return &obstacle{"no_worker", "no worker is running"}
	}
	servesQueue, servesType, loud, free := 0, 0, 0, 0
	for _, w := range c.alive {
		if !slices.Contains(w.Queues, queue) {
			continue
		}
		servesQueue++
		if len(w.Types) > 0 && !slices.Contains(w.Types, typ) {
			continue
		}
		servesType++
		if w.Directive != driver.DirectServe {
			continue
		}
		loud++
		if w.Held < w.Slots {
			free++
		}
	}
	switch {
	case servesQueue == 0:
		return &obstacle{"no_worker_for_queue", "no worker serves queue " + queue}
	case servesType == 0:
		return &obstacle{"no_worker_for_type", "no worker serves type " + typ}
	case loud == 0:
		return &obstacle{"quiet", "no worker that serves type " + typ + " takes new tasks: see waggle worker list"}
	case free == 0:
		return &obstacle{"busy", busyText(loud)}
	}
	return nil
}

// limitObstacle returns the limit of the queue or of a type that is reached, nil if none is.
func limitObstacle(q *driver.QueueInfo, typ string) *obstacle {
	for _, l := range q.Limits {
		if !l.PerKey && l.Concurrency > 0 && l.Held >= l.Concurrency && l.Concerns(typ, "") {
			return &obstacle{"limit", fmt.Sprintf("the limit of %s is reached: %d of %d active", l.Scope(), l.Held, l.Concurrency)}
		}
	}
	return nil
}

func busyText(workers int) string {
	if workers == 1 {
		return "its only worker is busy"
	}
	return fmt.Sprintf("all %d workers are busy", workers)
}

// typeObstacle is what keeps the available tasks of one type of a queue waiting.
type typeObstacle struct {
	Type string `json:"type"`
	obstacle
}

// obstacles returns what keeps the available tasks of a queue waiting, type by type.
func (c *crew) obstacles(q *driver.QueueInfo) []typeObstacle {
	var list []typeObstacle
	for _, t := range q.Types {
		if t.Counts[driver.Available] == 0 {
			continue
		}
		o := c.obstacle(q.Config, q.Name, t.Type)
		if o == nil {
			o = limitObstacle(q, t.Type)
		}
		if o != nil {
			list = append(list, typeObstacle{t.Type, *o})
		}
	}
	return list
}

// obstacleNote is a note on a queue that fits into a column. That it is paused stands there already.
func obstacleNote(list []typeObstacle) string {
	var types []string
	for _, o := range list {
		switch o.Kind {
		case "no_worker", "no_worker_for_queue":
			return "no worker"
		case "no_worker_for_type":
			types = append(types, o.Type)
		case "breaker":
			return "type " + o.Type + " is stopped"
		}
	}
	switch {
	case len(types) > 3:
		return fmt.Sprintf("no worker for %s and %d other types", types[0], len(types)-1)
	case len(types) > 0:
		return "no worker for " + strings.Join(types, ", ")
	case len(list) > 0 && (list[0].Kind == "busy" || list[0].Kind == "quiet"):
		return list[0].Kind
	}
	return ""
}
