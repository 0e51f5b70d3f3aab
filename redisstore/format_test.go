package redisstore_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/redisstore"
)

// TestOlderFormatIsBroughtUp opens a store of the first format: its tasks are there, it has the newest format, and a
// program that had it open, and would not know the new records, is refused.
func TestOlderFormatIsBroughtUp(t *testing.T) {
	t.Parallel()
	url := shared(t, redisserver.Redis)
	old := open(t, url, nil)
	task := []*driver.Task{{ID: "a", Type: "t"}}
	if _, err := old.Enqueue(t.Context(), task, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := redisstore.SetFormat(t.Context(), old, 1); err != nil {
		t.Fatal(err)
	}

	s := open(t, url, nil)
	records, err := s.Get(t.Context(), []string{"a"})
	if err != nil || records[0] == nil || records[0].State != driver.Available {
		t.Errorf("got %v, %v", records, err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.Schema != 3 {
		t.Errorf("got %+v, %v; want the format 3", info, err)
	}
	if _, err := old.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{}); !errors.Is(err, driver.ErrCorrupt) {
		t.Errorf("the older program enqueued: %v, want it to be refused", err)
	}
	if _, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{}); err != nil {
		t.Error(err)
	}
}

// TestNewerFormatIsRefused opens a store of a format that is not known.
func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	url := shared(t, redisserver.Redis)
	s := open(t, url, nil)
	if err := redisstore.SetFormat(t.Context(), s, 1000); err != nil {
		t.Fatal(err)
	}
	if got, err := redisstore.Open(t.Context(), url, nil); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("got %v, %v; want ErrUnsupported", got, err)
	}
}

// olderKeys writes what is known of keys as the second format had it: all tasks in flows, and active ones counted everywhere.
const olderKeys = `
local P = ARGV[1]
local known = redis.call('HGETALL', P .. 'keyed/default')
for i = 1, #known, 2 do
  local name, text = known[i], known[i + 1]
  if text:byte() == 76 then
    local head, id = text:sub(2, 18), text:sub(19)
    local pair, priority, value, order = struct.unpack('>I3I1I7I6', head)
    redis.call('ZREM', P .. 'heads/default', head .. name .. '\0' .. id)
    redis.call('ZADD', P .. 'heads/default', 0, head .. name)
    redis.call('ZADD', P .. 'flow/default', 0, name .. '\0' .. head:sub(1, 4) .. string.rep('\0', 6) .. head:sub(12) .. id)
    redis.call('HSET', P .. 'keyed/default', name, string.format('%.0f 0 0 0  %d/%d/1/%.0f:%d, ', value, pair, priority, value, order))
  end
end
redis.call('ZREM', P .. 'rest/default', 'gone')
redis.call('HSET', P .. 'keyed/default', 'gone', '50400 0 0 0 1=1,  ')
redis.call('HINCRBY', P .. 'share/default', 'h1', 2)
return tostring(#known / 2)`

// TestOlderKeysAreRead has a store whose keys are as the second format had them. They are counted and processed in the order in
// which they came, under limits that come later too, and nothing of them is left.
func TestOlderKeysAreRead(t *testing.T) {
	t.Parallel()
	for _, limited := range []bool{false, true} {
		s := newSpoilt(t)
		s.workOff()
		in := func(key string) func(*driver.Task) { return func(t *driver.Task) { t.Key = key } }
		s.add("gone", in("gone"))
		gone := fetch(t, s.store, "heir", 1)
		for _, key := range []string{"k", "l", "m"} {
			s.add(key, in(key))
		}
		if n := s.script(olderKeys); n != "3" {
			t.Fatalf("%s keys were rewritten, want 3", n)
		}
		s.must(redisstore.SetFormat(t.Context(), s.store, 2))
		s.store = open(t, s.url, nil)
		s.wantSound()
		s.add("k-too", in("k"))
		s.add("gone-too", in("gone"))
		want := []string{"k", "l", "m", "gone-too", "k-too"}
		if limited {
			_, err := s.store.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Limits: &[]driver.Limit{{PerKey: true, Concurrency: 1}}})
			s.must(err)
			want = want[:3] // the others' keys have one active
		}
		s.wantSound()
		redisstore.SetOffset(s.store, 2*time.Hour)
		var got []string
		claims := fetch(t, s.store, "heir", 10)
		for _, c := range claims {
			got = append(got, c.ID)
		}
		slices.Sort(got[min(3, len(got)):])
		slices.Sort(want[3:])
		if !slices.Equal(got, want) {
			t.Errorf("limited: %v: got %v, want %v", limited, got, want)
		}
		s.wantSound()
		settle(t, s.store, "heir", append(claims, gone...))
		s.workOff()
		s.wantSound()
	}
}
