package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// job is what a contestant's process is asked to do, given as its last argument in JSON. The Node.js program reads the
// same.
type job struct {
	Contestant string `json:"contestant"`
	URL        string `json:"url"`
	Do         action `json:"do"`

	WarmMS   int `json:"warm_ms,omitzero"`   // enqueue: run this long before the clock starts
	RunMS    int `json:"run_ms,omitzero"`    // enqueue: then count for this long
	Callers  int `json:"callers,omitzero"`   // enqueue, fill: calls at once
	Batch    int `json:"batch,omitzero"`     // enqueue, fill: tasks a call; 1 means one by one
	Tasks    int `json:"tasks,omitzero"`     // fill, work: how many
	Slots    int `json:"slots,omitzero"`     // work: handlers at once; 0: the queue's default
	Samples  int `json:"samples,omitzero"`   // pickup: how many
	GapMS    int `json:"gap_ms,omitzero"`    // pickup: idle time before each, at least
	SpreadMS int `json:"spread_ms,omitzero"` // pickup: and at random up to this much more
}

// action is what to do.
type action string

const (
	doOpen    action = "open"    // connect, create what is missing, disconnect
	doEnqueue action = "enqueue" // enqueue for a time, count
	doFill    action = "fill"    // enqueue Tasks, numbered from 0
	doWork    action = "work"    // work off Tasks that are there
	doPickup  action = "pickup"  // time from enqueue to handler, one by one
	doHold    action = "hold"    // enqueue one task, start it, never end it
	doTake    action = "take"    // wait for one task
)

// event is one line that a contestant's process prints.
type event struct {
	Event eventKind `json:"event"`

	Count     int       `json:"count,omitzero"`       // tasks while the clock ran
	Seconds   float64   `json:"seconds,omitzero"`     // that the clock ran
	All       int       `json:"all,omitzero"`         // tasks, warm-up included
	CPU       float64   `json:"cpu_seconds,omitzero"` // of this process over all of them
	SamplesMS []float64 `json:"samples_ms,omitzero"`  // pickup
}

type eventKind string

const (
	evReady   eventKind = "ready"   // take: the worker is running
	evStarted eventKind = "started" // hold, take: the handler has been called
	evDone    eventKind = "done"    // all is done and checked
)

// printEvent writes e as a line.
func printEvent(w io.Writer, e event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// readEvents sends the events in r to out until r ends. Lines that are none, such as a library's own messages, are
// given to other.
func readEvents(r io.Reader, out chan<- event, other func(string)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Event == "" {
			other(lines.Text())
			continue
		}
		out <- e
	}
	if err := lines.Err(); err != nil {
		other(fmt.Sprintf("reading events: %v", err))
	}
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }
