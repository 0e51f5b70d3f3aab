package room

import (
	"context"
	"sync"
	"time"
)

const (
	// follow is how long a web server goes without looking at the log when no hint comes.
	follow = 250 * time.Millisecond
	// atOnce is how many entries are read in one go; recent how many are kept for those that read along.
	atOnce, recent = 64, 256
	lookMost       = 2 * time.Second
)

// Follower is step 5: it follows the logs of rooms, for all the users of a web server. It keeps nothing that it could not
// read again.
type Follower struct {
	Database Database
	// Hints, if not nil, gets what the database says in passing.
	Hints func(room string, h Hint)

	mu    sync.Mutex
	rooms map[string]*tail
}

// tail is the end of a room's log, as far as it was read. It exists while somebody follows the room.
type tail struct {
	users int
	stop  context.CancelFunc

	mu      sync.Mutex
	entries []Entry       // the last ones, in order
	last    int64         // the number of the last one that was read
	grown   chan struct{} // closed when there are more
}

// Reader reads a room's log from some number on.
type Reader struct {
	f     *Follower
	room  string
	tail  *tail
	after int64
}

// Open returns a reader of the entries after a number. The caller closes it.
func (f *Follower) Open(room string, after int64) *Reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.rooms[room]
	if t == nil {
		ctx, cancel := context.WithCancel(context.Background())
		t = &tail{stop: cancel, last: -1, grown: make(chan struct{})}
		if f.rooms == nil {
			f.rooms = map[string]*tail{}
		}
		f.rooms[room] = t
		go f.run(ctx, room, t)
	}
	t.users++
	return &Reader{f: f, room: room, tail: t, after: after}
}

// Close ends the reader.
func (r *Reader) Close() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if r.tail.users--; r.tail.users == 0 {
		r.tail.stop()
		delete(r.f.rooms, r.room)
	}
}

// run reads the log of a room whenever it may have grown.
func (f *Follower) run(ctx context.Context, room string, t *tail) {
	hint := make(chan struct{}, 1)
	go f.Database.Watch(ctx, room, func(h Hint) {
		if h.Kind == HintLog {
			select {
			case hint <- struct{}{}:
			default: // one is waiting
			}
			return
		}
		if f.Hints != nil {
			f.Hints(room, h)
		}
	})
	tick := time.NewTicker(follow)
	defer tick.Stop()
	for ctx.Err() == nil {
		for f.look(ctx, room, t) {
		}
		select {
		case <-hint:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look reads on, and reports whether there may be more.
func (f *Follower) look(ctx context.Context, room string, t *tail) (more bool) {
	ctx, cancel := context.WithTimeout(ctx, lookMost)
	defer cancel()
	if t.last < 0 {
		n, err := f.Database.Length(ctx, room)
		if err != nil {
			return false // the next tick tries again
		}
		t.append(nil, max(0, n-recent))
	}
	entries, err := f.Database.Log(ctx, room, t.last, atOnce)
	if err != nil || len(entries) == 0 {
		return false
	}
	t.append(entries, entries[len(entries)-1].Number)
	return len(entries) == atOnce
}

func (t *tail) append(entries []Entry, last int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, entries...)
	t.entries = append([]Entry(nil), t.entries[max(0, len(t.entries)-recent):]...)
	t.last = last
	close(t.grown)
	t.grown = make(chan struct{})
}

// since returns the entries after a number, or nil if some of them are no longer kept; and a channel that is closed when
// there are more.
func (t *tail) since(after int64) (entries []Entry, kept bool, grown <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch first := t.last - int64(len(t.entries)) + 1; {
	case after >= t.last:
		return nil, true, t.grown
	case t.last < 0 || after+1 < first:
		return nil, false, t.grown
	default:
		return t.entries[after+1-first:], true, t.grown
	}
}

// Next returns the entries that follow those it returned before; none if there are no new ones yet, and then a channel that
// is closed when there are. An error is one of the database: trying again is all there is to do.
func (r *Reader) Next(ctx context.Context) ([]Entry, <-chan struct{}, error) {
	entries, kept, grown := r.tail.since(r.after)
	if !kept {
		var err error
		if entries, err = r.f.Database.Log(ctx, r.room, r.after, atOnce); err != nil {
			return nil, grown, err
		}
	}
	if n := len(entries); n > 0 {
		r.after = entries[n-1].Number
	}
	return entries, grown, nil
}
