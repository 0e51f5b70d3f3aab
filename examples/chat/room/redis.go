package room

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/redisstore"
)

const (
	callMost = 2 * time.Second // how long a call to the database may take
	waitMost = time.Second     // of it the wait for replicas
	resume   = 100 * time.Millisecond
)

//go:embed lua/*.lua
var scripts embed.FS

// redisDatabase keeps the rooms in Redis or Valkey, beside the queue. The keys of a room lie in one slot of a Cluster:
//
//	message:ID  hash: sum, head, and number once it has one
//	chunks:ID   hash: number → text, until the message is put together
//	log         list of entries: an entry's place is its number
//	safe        the number up to which other nodes have the log
type redisDatabase struct {
	client   rueidis.Client
	replicas int64  // how many must have what was written
	prefix   string // of keys, with the store's namespace

	announce, store, append, seal string
}

func openRedis(storeURL string) (*redisDatabase, error) {
	_, query, _ := strings.Cut(storeURL, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the options of the store's URL: %w", err)
	}
	replicas, _ := strconv.ParseInt(options.Get("replicas"), 10, 32) // Connect refuses what is no number
	client, err := redisstore.Connect(storeURL, &redisstore.Options{Timeout: callMost})
	if err != nil {
		return nil, err
	}
	db := &redisDatabase{client: client, replicas: replicas, prefix: "chat:" + options.Get("ns") + ":"}
	for name, script := range map[string]*string{"announce": &db.announce, "store": &db.store, "append": &db.append, "seal": &db.seal} {
		text, err := scripts.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, err
		}
		*script = string(text)
	}
	return db, nil
}

func (db *redisDatabase) key(room, name string) string { return db.prefix + "{" + room + "}:" + name }

// eval is a call of a script. The text is sent each time: it is short, and no node has to be taught it after a failover.
func (db *redisDatabase) eval(c rueidis.CoreClient, script string, keys []string, args ...string) rueidis.Completed {
	return c.B().Eval().Script(script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// write runs scripts that write, and waits until a replica has what they wrote, all on one connection. This is where the
// nodes of the database replicate the data: see step 3.
func (db *redisDatabase) write(ctx context.Context, n int, call func(c rueidis.CoreClient, i int) rueidis.Completed) ([][]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callMost)
	defer cancel()
	c, release := db.client.Dedicate()
	defer release()
	calls := make([]rueidis.Completed, n, n+1)
	for i := range calls {
		calls[i] = call(c, i)
	}
	if db.replicas > 0 {
		calls = append(calls, c.B().Wait().Numreplicas(db.replicas).Timeout(waitMost.Milliseconds()).Build())
	}
	replies := c.DoMulti(ctx, calls...)
	results := make([][]int64, n)
	for i := range results {
		var err error
		if results[i], err = numbers(replies[i]); err != nil {
			return nil, unavailable(err)
		}
	}
	if db.replicas > 0 {
		has, err := replies[n].AsInt64()
		if err != nil {
			return nil, unavailable(err)
		}
		if has < db.replicas {
			return nil, unavailable(fmt.Errorf("%d of %d replicas have it after %v", has, db.replicas, waitMost))
		}
	}
	return results, nil
}

// numbers reads a reply of one number or several.
func numbers(r rueidis.RedisResult) ([]int64, error) {
	m, err := r.ToMessage()
	if err != nil {
		return nil, err
	}
	if m.IsInt64() {
		n, err := m.AsInt64()
		return []int64{n}, err
	}
	return m.AsIntSlice()
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

var headSeconds = strconv.Itoa(int(headKept.Seconds()))

func (db *redisDatabase) Announce(ctx context.Context, room string, h Head) (int64, error) {
	replies, err := db.write(ctx, 1, func(c rueidis.CoreClient, _ int) rueidis.Completed {
		return db.eval(c, db.announce, []string{db.key(room, "message:"+h.ID)}, h.Sum, encoded(h), headSeconds)
	})
	switch {
	case err != nil:
		return 0, err
	case replies[0][0] == 0:
		return 0, ErrConflict
	}
	return replies[0][1], nil
}

func (db *redisDatabase) Store(ctx context.Context, room string, chunks []Chunk) ([]Stored, error) {
	groups := byMessage(chunks)
	replies, err := db.write(ctx, len(groups), func(c rueidis.CoreClient, i int) rueidis.Completed {
		first := chunks[groups[i][0]]
		keys := []string{db.key(room, "message:"+first.ID), db.key(room, "chunks:"+first.ID)}
		args := []string{first.Sum, encoded(first.Head), headSeconds}
		for _, at := range groups[i] {
			args = append(args, strconv.Itoa(chunks[at].N), chunks[at].Text)
		}
		return db.eval(c, db.store, keys, args...)
	})
	if err != nil {
		return nil, err
	}
	stored := make([]Stored, len(chunks))
	for i, r := range replies {
		for _, at := range groups[i] {
			stored[at] = Stored{Conflict: r[0] == 0, Number: r[2]}
		}
		stored[groups[i][len(groups[i])-1]].Count = int(r[1])
	}
	return stored, nil
}

// byMessage returns the places of the chunks of each message.
func byMessage(chunks []Chunk) (groups [][]int) {
	type message struct{ id, sum string }
	of := map[message]int{}
	for at, c := range chunks {
		m := message{c.ID, c.Sum}
		i, known := of[m]
		if !known {
			i, of[m] = len(groups), len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], at)
	}
	return groups
}

func (db *redisDatabase) Chunks(ctx context.Context, room string, h Head) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callMost)
	defer cancel()
	c := db.client
	texts, err := c.Do(ctx, c.B().Hgetall().Key(db.key(room, "chunks:"+h.ID)).Build()).AsStrMap()
	if err != nil {
		return nil, unavailable(err)
	}
	if len(texts) < h.Of { // they go when the message gets its number
		return nil, db.isNumbered(ctx, room, h)
	}
	chunks := make([]string, h.Of)
	for n := range chunks {
		chunks[n] = texts[strconv.Itoa(n)]
	}
	return chunks, nil
}

func (db *redisDatabase) isNumbered(ctx context.Context, room string, h Head) error {
	_, err := db.client.Do(ctx, db.client.B().Hget().Key(db.key(room, "message:"+h.ID)).Field("number").Build()).AsInt64()
	if rueidis.IsRedisNil(err) { // a failover took chunks back
		return unavailable(fmt.Errorf("chunks of message %s are missing", h.ID))
	}
	return unavailable(err)
}

func (db *redisDatabase) Append(ctx context.Context, room string, messages []Message) ([]int64, error) {
	replies, err := db.write(ctx, len(messages), func(c rueidis.CoreClient, i int) rueidis.Completed {
		m := messages[i]
		keys := []string{db.key(room, "message:"+m.ID), db.key(room, "chunks:"+m.ID), db.key(room, "log")}
		return db.eval(c, db.append, keys, m.sum(), encodeEntry(&m))
	})
	if err != nil {
		return nil, err
	}
	numbers := make([]int64, len(messages))
	for i, r := range replies {
		numbers[i] = r[0]
	}
	return numbers, db.markSafe(ctx, room, slices.Max(numbers))
}

func (db *redisDatabase) markSafe(ctx context.Context, room string, number int64) error {
	ctx, cancel := context.WithTimeout(ctx, callMost)
	defer cancel()
	return unavailable(db.client.Do(ctx, db.eval(db.client, db.seal, []string{db.key(room, "safe")},
		strconv.FormatInt(number, 10), db.key(room, "hints"), encoded(Hint{Kind: HintLog}))).Error())
}

func (db *redisDatabase) Log(ctx context.Context, room string, after int64, most int) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callMost)
	defer cancel()
	c := db.client
	replies := c.DoMulti(ctx, c.B().Get().Key(db.key(room, "safe")).Build(),
		c.B().Lrange().Key(db.key(room, "log")).Start(after).Stop(after+int64(most)-1).Build())
	safe, err := replies[0].AsInt64()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	texts, err2 := replies[1].AsStrSlice()
	if err != nil || err2 != nil {
		return nil, unavailable(cmpError(err, err2))
	}
	texts = texts[:min(int64(len(texts)), max(0, safe-after))]
	entries := make([]Entry, len(texts))
	for i, text := range texts {
		if entries[i], err = decodeEntry(after+int64(i)+1, text); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (db *redisDatabase) Length(ctx context.Context, room string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callMost)
	defer cancel()
	n, err := db.client.Do(ctx, db.client.B().Get().Key(db.key(room, "safe")).Build()).AsInt64()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	return n, unavailable(err)
}

func (db *redisDatabase) Watch(ctx context.Context, room string, f func(Hint)) {
	for ctx.Err() == nil {
		subscribe := db.client.B().Subscribe().Channel(db.key(room, "hints")).Build()
		_ = db.client.Receive(ctx, subscribe, func(m rueidis.PubSubMessage) { // ends with the connection: on to the next
			var h Hint
			if json.Unmarshal([]byte(m.Message), &h) == nil {
				f(h)
			}
		})
		select {
		case <-time.After(resume):
		case <-ctx.Done():
		}
	}
}

func (db *redisDatabase) Hint(room string, h Hint) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), callMost)
		defer cancel()
		c := db.client
		_ = c.Do(ctx, c.B().Publish().Channel(db.key(room, "hints")).Message(encoded(h)).Build()).Error() // lost: nothing depends on it
	}()
}

func (db *redisDatabase) Close() error {
	db.client.Close()
	return nil
}
