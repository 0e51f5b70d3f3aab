package system

import (
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/examples/chat/wire"
)

// fall is what is known of the last fall of a master, until the chunks that waited meanwhile are through.
type fall struct {
	master    string
	at        time.Time
	taken     bool  // there is a new master
	waited    int   // chunks that waited then
	enqueued  int64 // all that had been enqueued then
	discarded int64
	told      bool
}

// before notes when the master falls.
func (w *watch) before(node, action string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if action == Kill || action == Freeze {
		w.faults++
	}
	if node == w.master && (action == Kill || action == Freeze) {
		w.fall = fall{master: node, at: time.Now(), discarded: w.totals.Discarded}
	}
}

// took tells that there is a new master.
func (w *watch) took(name string) {
	w.mu.Lock()
	f := &w.fall
	known := f.master != "" && !f.taken
	f.taken = true
	after := time.Since(f.at).Seconds()
	w.mu.Unlock()
	if known {
		w.s.tale.tell(good, "%s is the master, after %.1f s.", name, after)
	} else {
		w.s.tale.tell("", "%s is the master.", name)
	}
}

// settle tells how the chunks fared that waited for a new master.
func (w *watch) settle(q wire.Queue, t waggle.Totals) {
	w.mu.Lock()
	f := &w.fall
	if !f.taken || f.told || f.master == "" {
		w.mu.Unlock()
		return
	}
	if f.enqueued == 0 { // the first look at the new master
		f.waited, f.enqueued = q.Waiting+q.Running, t.Enqueued
	}
	through := q.Waiting+q.Running == 0 || t.Completed+t.Discarded+t.Cancelled >= f.enqueued
	f.told = through
	waited, lost := f.waited, t.Discarded-f.discarded
	w.mu.Unlock()
	switch {
	case !through:
	case lost > 0:
		w.s.tale.tell(bad, "%s waited, %d lost.", plural(waited, "chunk", "chunks"), lost)
	case waited > 0:
		w.s.tale.tell(good, "%s waited, none lost.", plural(waited, "chunk", "chunks"))
	default:
		w.s.tale.tell(good, "Nothing waited, nothing was lost.")
	}
}
