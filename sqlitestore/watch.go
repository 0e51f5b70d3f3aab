package sqlitestore

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

// settled is how long a writer must have had nothing to do before it watches the log. Before that its own transactions
// show the changes of others, and its own writes would only tell it of itself.
const settled = 3 * time.Millisecond

// unwatched is how often an armed watch looks even if nothing was told.
const unwatched = 500 * time.Millisecond

// echoes are the pauses between looks after the log was written to: that is told before the change can be seen, which
// takes an fsync more.
var echoes = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond, 2 * time.Millisecond,
	2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond, 16 * time.Millisecond, 32 * time.Millisecond}

// tail are the pauses between the looks that are left once a look has shown a change: the log may have been written to for
// another one, which was not to be seen yet.
var tail = []time.Duration{4 * time.Millisecond, 32 * time.Millisecond}

// watch decides when an idle writer looks for changes by other processes. Where the operating system tells of writes to
// the log it costs nothing while nothing happens; elsewhere it polls. It belongs to the writer's goroutine.
type watch struct {
	path      string // of the log
	pollEvery time.Duration
	notifier  *fsnotify.Watcher
	deaf      bool // the operating system does not tell
	armed     bool
	echo      int             // looks since the log was written to, from 1; 0: it was not
	pauses    []time.Duration // between these looks
}

// delay is when to look next.
func (w *watch) delay(waiting bool) time.Duration {
	switch {
	case !waiting:
		return time.Hour
	case w.deaf:
		return w.pollEvery
	case !w.armed:
		return settled
	case w.echo > 0:
		return w.pauses[w.echo-1]
	}
	return unwatched
}

// events tells of writes to the log; nil while the watch is not armed.
func (w *watch) events() <-chan fsnotify.Event {
	if !w.armed {
		return nil
	}
	return w.notifier.Events
}

// arm begins to watch if somebody waits. The caller looks afterwards, for what happened before, and again as after a
// write: one that another process made just before may become visible later, and nothing will tell of it.
func (w *watch) arm(waiting bool) {
	if !waiting || w.armed || w.deaf {
		return
	}
	if w.notifier == nil {
		notifier, err := fsnotify.NewBufferedWatcher(64)
		if err != nil {
			w.deaf = true
			return
		}
		w.notifier = notifier
	}
	if w.notifier.Add(w.path) != nil {
		w.deaf = true
		return
	}
	w.armed, w.echo, w.pauses = true, 1, echoes
}

// disarm ends the watch.
func (w *watch) disarm() {
	if w.armed {
		w.armed = false
		_ = w.notifier.Remove(w.path) // what it still tells is dropped by the next alert
	}
}

// alert is called when the log was written to.
func (w *watch) alert() {
	for {
		select {
		case <-w.notifier.Events:
			continue
		case <-w.notifier.Errors: // some were dropped: as good as one
			continue
		default:
		}
		break
	}
	w.echo, w.pauses = 1, echoes
}

// seen is called when a look has shown a change.
func (w *watch) seen() {
	if w.echo > 0 {
		w.echo, w.pauses = 1, tail
	}
}

// looked is called when a pause is over.
func (w *watch) looked() {
	if w.echo > 0 {
		w.echo = (w.echo + 1) % (len(w.pauses) + 1)
	}
}

func (w *watch) close() {
	if w.notifier != nil {
		_ = w.notifier.Close() // nothing depends on it any more
	}
}
