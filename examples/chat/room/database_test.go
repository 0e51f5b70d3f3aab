package room

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// eachStore runs a test with the URL of each kind of store that the chat can use.
func eachStore(t *testing.T, test func(t *testing.T, storeURL string)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "chat.db"))
	})
	t.Run("valkey", func(t *testing.T) {
		t.Parallel()
		master := redistest.Start(t, &redisserver.Options{Flavour: redisserver.Valkey, AOF: redisserver.AOFEverySec})
		redistest.Start(t, &redisserver.Options{Flavour: redisserver.Valkey, ReplicaOf: master})
		test(t, master.URL()+"?replicas=1")
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{AOF: redisserver.AOFEverySec}}).URL()+"?replicas=1")
	})
}

func openPlace(t *testing.T, storeURL string) *Place {
	t.Helper()
	p, err := Open(t.Context(), storeURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Whatever is done twice counts once, and an id belongs to one text.
func TestDatabase(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, storeURL string) {
		ctx, db := t.Context(), openPlace(t, storeURL).Database
		m := Message{ID: "m1", Author: "Ada", At: time.Now().UTC().Truncate(time.Second), Text: "a\x00b \"<é🐝" + string(make([]byte, 100))}
		head, chunks := split("r", &m)
		other := head
		other.Sum = "other"
		for range 2 {
			if n, err := db.Announce(ctx, "r", head); n != 0 || err != nil {
				t.Fatalf("announce: %d, %v", n, err)
			}
		}
		if _, err := db.Announce(ctx, "r", other); !errors.Is(err, ErrConflict) {
			t.Errorf("another text: %v", err)
		}
		for _, step := range []struct {
			chunks []Chunk
			want   Stored // of the last
		}{
			{[]Chunk{chunks[1], chunks[1]}, Stored{Count: 1}},
			{[]Chunk{chunks[1], chunks[0]}, Stored{Count: 2}},
			{[]Chunk{chunks[0], {Room: "r", Head: other}}, Stored{Conflict: true}},
			{[]Chunk{{Room: "r", Head: other}, chunks[0]}, Stored{Count: 2}},
		} {
			if stored, err := db.Store(ctx, "r", step.chunks); err != nil || stored[len(stored)-1] != step.want {
				t.Errorf("store: %v, %v, want %v", stored, err, step.want)
			}
		}
		if texts, err := db.Chunks(ctx, "r", head); err != nil || !cmp.Equal(texts, cut(m.Text)) {
			t.Errorf("chunks: %q, %v", texts, err)
		}
		if n, err := db.Length(ctx, "r"); n != 0 || err != nil {
			t.Errorf("length before: %d, %v", n, err)
		}
		second := Message{ID: "m2", Author: "Bob", Text: "2"}
		if _, err := db.Announce(ctx, "r", Head{ID: "m2", Sum: second.sum()}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n, err := db.Append(ctx, "r", []Message{m, second, m}); err != nil || !cmp.Equal(n, []int64{1, 2, 1}) {
				t.Fatalf("append: %v, %v", n, err)
			}
		}
		if n, err := db.Announce(ctx, "r", head); n != 1 || err != nil {
			t.Errorf("announce at last: %d, %v", n, err)
		}
		if s, err := db.Store(ctx, "r", chunks[:1]); err != nil || s[0] != (Stored{Number: 1}) {
			t.Errorf("store at last: %v, %v", s, err)
		}
		if texts, err := db.Chunks(ctx, "r", head); texts != nil || err != nil {
			t.Errorf("chunks at last: %q, %v", texts, err)
		}
		log, err := db.Log(ctx, "r", 0, 10)
		if want := []Entry{{1, m}, {2, second}}; err != nil || !cmp.Equal(log, want) {
			t.Errorf("log: %v, %s", err, cmp.Diff(want, log))
		}
		if log, err = db.Log(ctx, "r", 1, 10); err != nil || len(log) != 1 || log[0].Number != 2 {
			t.Errorf("log after 1: %v, %v", log, err)
		}
		if n, err := db.Length(ctx, "other"); n != 0 || err != nil {
			t.Errorf("another room has %d, %v", n, err)
		}
	})
}

// Many that enter the same messages at once give each one number, and no number twice.
func TestAppendAtOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, storeURL string) {
		ctx, db := t.Context(), openPlace(t, storeURL).Database
		const messages, writers = 30, 4
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for i := range messages {
					m := Message{ID: fmt.Sprint("m", i), Author: "Ada", Text: fmt.Sprint(i)}
					head, chunks := split("r", &m)
					if _, err := db.Store(ctx, "r", chunks); err != nil {
						t.Error(err)
					}
					if _, err := db.Append(ctx, "r", []Message{m}); err != nil {
						t.Error(head, err)
					}
				}
			})
		}
		wg.Wait()
		log, err := db.Log(ctx, "r", 0, 2*messages)
		seen := map[string]bool{}
		for i, e := range log {
			seen[e.ID] = true
			if e.Number != int64(i)+1 {
				t.Errorf("entry %d has number %d", i+1, e.Number)
			}
		}
		if err != nil || len(log) != messages || len(seen) != messages {
			t.Errorf("the log has %d entries of %d messages: %v", len(log), len(seen), err)
		}
	})
}
