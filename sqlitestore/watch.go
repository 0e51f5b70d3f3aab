package sqlitestore

import (
	"math/rand/v2"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settled is how long a writer must have had nothing to do before it watches. Before that its own transactions show the
// changes of others.
const settled = 3 * time.Millisecond

// unwatched is how often an armed watch looks even if nothing was told: a process can die between a commit and its word.
const unwatched = 500 * time.Millisecond

// watch decides when an idle writer looks for changes by other processes. Each of them writes to the store's mark after
// a commit with events, to its bell after one that gives idle workers something to do, and to the log alone after one that
// concerns nobody, such as a heartbeat. Where the operating
// system tells of writes to a file, waiting costs nothing while nothing of interest happens; elsewhere it polls. It belongs
// to the writer's goroutine.
type watch struct {
	mark      *markFile
	bell      *bellFile
	pollEvery time.Duration
	notifier  *fsnotify.Watcher
	deaf      bool // the operating system does not tell
	armed     bool
	crowd     int64         // workers that share the store, as of this process's last heartbeat
	hush      time.Duration // how long to wait with the look that is due
	told      int           // how much the operating system has told: see TestHeartbeatsWakeNobody
}

// Of many workers who hear of one task one tries to take it at once. The others look a little later, one after the other, for
// it may serve another queue; they see all that became of the task in one look, and are not woken meanwhile. If all tried, who
// has the write lock would have to share the processor with those who wait for it. See idle_workers in internal/figures.
const (
	hushed = 2 * time.Millisecond
	hush   = time.Millisecond // between the looks of the others
)

// delay is when to look next.
func (w *watch) delay(waiting bool) time.Duration {
	switch {
	case !waiting:
		return time.Hour
	case w.deaf:
		return w.pollEvery
	case !w.armed:
		if w.hush > 0 {
			return w.hush
		}
		return settled
	}
	return unwatched
}

// events tells of writes to the mark; nil while the watch is not armed.
func (w *watch) events() <-chan fsnotify.Event {
	if !w.armed {
		return nil
	}
	return w.notifier.Events
}

// arm begins to watch if somebody waits. The caller looks afterwards, for what happened before: what is committed later
// is told later.
func (w *watch) arm(waiting, followed bool) {
	w.hush = 0
	w.bell.leave()
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
	if !w.bell.open() || w.notifier.Add(w.bell.path) != nil || followed && (!w.mark.open() || w.notifier.Add(w.mark.path) != nil) {
		w.deaf = true
		return
	}
	w.armed = true
}

// disarm ends the watch.
func (w *watch) disarm() {
	if w.armed {
		w.armed = false
		for _, path := range w.notifier.WatchList() {
			_ = w.notifier.Remove(path) // what it still tells is dropped by the next alert
		}
	}
}

// alert is called when something has happened to the bell or the mark. If it is not that it was written to, another file may
// be there. It reports whether to look at once.
func (w *watch) alert(e fsnotify.Event, working bool) bool {
	w.told++
	gone, marked := !e.Has(fsnotify.Write), e.Name == w.mark.path
	for {
		select {
		case e := <-w.notifier.Events:
			w.told++
			gone, marked = gone || !e.Has(fsnotify.Write), marked || e.Name == w.mark.path
			continue
		case <-w.notifier.Errors: // some were dropped: as good as one
			continue
		default:
		}
		break
	}
	if gone {
		w.mark.again()
		w.bell.again()
		w.disarm()
	}
	if marked || !working || w.bell.take() {
		return true
	}
	w.disarm()
	w.hush = hushed + rand.N(time.Duration(max(1, w.crowd))*hush)
	return false
}

func (w *watch) close() {
	if w.notifier != nil {
		_ = w.notifier.Close() // nothing depends on it any more
	}
}
