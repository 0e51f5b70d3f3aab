// Package redisstore keeps a Waggle queue in Redis (7.0 or newer) or Valkey (8.0 or newer): on one server, behind
// Sentinel, or spread over a Cluster. See [Open] for the URLs.
//
// A shard is one hash slot and holds a complete queue; a Cluster has many, together they are one logical queue. All that
// has to be atomic is a script of lua/. The server's memory bounds the queue: set maxmemory-policy to noeviction.
package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// schema is the version of the stored format, and oldestSchema the oldest that is read too. Version 2 has the short form of
// runs, version 3 lone keys, and active tasks of keys are counted only where something depends on it. A store is brought to the newest version when it is opened, and gets another incarnation in the same step, so that
// the scripts refuse programs that have it open; see lua/open.lua.
const (
	schema       = 3
	oldestSchema = 1
)

// Options are what Open can be told beside the URL. The zero value of a field means what the URL says, else its default.
type Options struct {
	// Limits bounds what the store accepts.
	Limits driver.Limits
	// MaxEvents is how many events the log keeps, per shard; 0: 100 000. Negative: none are logged.
	MaxEvents int
	// Timeout bounds each call to the server; 0: 5 s.
	Timeout time.Duration
	// Replicas is how many replicas must hold a task for the level "replicated"; 0: that level is not offered.
	Replicas int
	// DefaultDurability is the level where a caller asks for none; empty: memory.
	DefaultDurability driver.Durability
	// RequireDisk refuses a server that can't offer the level "disk".
	RequireDisk bool
}

// withDefaults returns the options as they are in force, with what the URL says in the place of what they leave open.
func (o *Options) withDefaults(t *target) (Options, error) {
	var v Options
	if o != nil {
		v = *o
	}
	v.Timeout, v.Replicas = cmp.Or(v.Timeout, t.timeout), cmp.Or(v.Replicas, t.replicas)
	if v.DefaultDurability == "" && !v.RequireDisk {
		v.DefaultDurability = t.durability
	}
	limits, err := v.Limits.WithDefaults()
	if err != nil {
		return v, err
	}
	v.Limits = limits
	if v.Timeout < 0 || v.Replicas < 0 {
		return v, driver.Invalidf("the timeout and the number of replicas must not be negative, got %v and %d", v.Timeout, v.Replicas)
	}
	if v.DefaultDurability == driver.DurabilityReplicated && v.Replicas == 0 {
		return v, driver.Invalidf("the level \"replicated\" needs the number of replicas to wait for: add replicas=1 to the store's URL")
	}
	if v.Timeout == 0 {
		v.Timeout = 5 * time.Second
	}
	if v.MaxEvents == 0 {
		v.MaxEvents = 100_000
	}
	if v.DefaultDurability == "" {
		v.DefaultDurability = driver.DurabilityMemory
		if v.RequireDisk {
			v.DefaultDurability = driver.DurabilityDisk
		}
	}
	return v, nil
}

// Store implements driver.Store.
type Store struct {
	direct  rueidis.Client // claims, settlements, new tasks: a connection a call
	data    rueidis.Client // the same where a connection is shared
	control rueidis.Client // leases, inspection: never behind a queue of large batches
	waiting rueidis.Client // calls that block
	wires   connections

	target    *target
	watchers  *watchers // nil without Sentinel
	where     string    // the server, for messages
	timeout   time.Duration
	maxEvents string
	// intakeCaller names this handle among those that move the same intake list.
	intakeCaller  string
	intakeRespect time.Duration
	options       Options
	caps          driver.Capabilities
	shards        []*shard
	server        serverInfo

	offset   atomic.Int64 // ms added to the clock, by tests only
	next     atomic.Uint32
	workers  sync.Map // worker id → driver.WorkerInfo, of those registered here
	fair     fair
	rounds   sync.Map // worker id → *rounds, of those that fetch from several shards
	awoken   sync.Map // ids of workers whose last wait was ended by a token
	dues     sync.Map // worker id → time.Time, when the next task that it could claim is due
	watches  eventWatches
	dropping sync.Mutex // one call of this program at a time drops tasks of full queues: they are the same ones
	lending  lending

	life     context.Context // ends with Close
	end      context.CancelFunc
	closeErr sync.Once
	health   health
}

var _ driver.Store = (*Store)(nil)

// Open connects to a store, creating it if there is none in its namespace:
//
//	redis://[user:password@]host[:6379][/database][?ns=NAME&password_file=FILE]
//	rediss://…  over TLS, with ?ca_file, cert_file, key_file, server_name
//	valkey://…  as redis://
//	redis+unix://[user:password@]/path/of/socket[?db=NUMBER]
//	redis-sentinel://[user:password@]host:26379,host:26379/master
//	redis+cluster://[user:password@]host,host[?shards=16]
//
// The files that a URL names are read again for each new connection, so that what they hold may change.
//
// All of them take these options, with which every program that is given the URL works in the same way:
//
//	replicas=N        offer the level "replicated": N replicas must hold a task
//	durability=LEVEL  the level where a caller asks for none: memory, disk or replicated
//	timeout=DURATION  bounds each call to the server, as 3s
//
// What opts sets takes precedence over the URL. It returns [driver.ErrInvalid] for an invalid URL, invalid options or another number of shards than the store has, [driver.ErrUnsupported] for a server that is too old
// or configured so that tasks could vanish, and [driver.ErrUnavailable] for one that can't be reached. Errors say what to
// do and show no credentials.
func Open(ctx context.Context, url string, opts *Options) (*Store, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o, err := opts.withDefaults(t)
	if err != nil {
		return nil, err
	}
	s := &Store{
		target: t, options: o, timeout: o.Timeout, maxEvents: strconv.Itoa(max(o.MaxEvents, 0)),
		intakeCaller: rand.Text(), intakeRespect: intakeRespect,
		where: whereIs(t),
	}
	s.life, s.end = context.WithCancel(context.Background())
	for i := range t.shards {
		s.shards = append(s.shards, newShard(t.namespace, i))
	}
	if t.mode == sentinel {
		s.watchers = newWatchers(t, s.timeout)
	}
	if err := s.connect(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// whereIs names the servers of a store, for messages.
func whereIs(t *target) string { return "the store at " + strings.Join(t.addresses, ",") }

// poolSize is how many connections a client keeps for calls that have one to themselves.
const poolSize = 256

func (s *Store) connect() error {
	for _, c := range []struct {
		client *rueidis.Client
		shape  func(*rueidis.ClientOption)
	}{
		{&s.control, func(o *rueidis.ClientOption) {
			o.PipelineMultiplex, o.BlockingPoolSize = -1, 8
			o.DisableRetry = s.target.mode == standalone // only what reads is ever repeated, and only another node may answer
		}},
		{&s.data, func(o *rueidis.ClientOption) {
			o.PipelineMultiplex, o.BlockingPoolSize = 1, poolSize
			o.Dialer.KeepAlive = 3 * time.Second
		}},
		{&s.direct, func(o *rueidis.ClientOption) {
			o.DisableAutoPipelining = true
			o.PipelineMultiplex, o.BlockingPoolSize = -1, poolSize
			// One that is looked at before use needs no watch; but it may be dead without a sign, so there should not be many.
			o.Dialer.KeepAlive = 10 * time.Second
			o.BlockingPoolMinSize, o.BlockingPoolCleanup = 4, 30*time.Second
		}},
		{&s.waiting, func(o *rueidis.ClientOption) { o.PipelineMultiplex = -1; o.BlockingPoolSize = 4096 }},
	} {
		o := s.target.clientOption()
		o.Dialer.Timeout = s.timeout
		o.ConnWriteTimeout = 2 * s.timeout
		c.shape(&o)
		if s.watchers != nil {
			s.watchers.option(&o)
			s.wires.option(&o, s.target, s.watchers.permit)
		} else {
			s.wires.option(&o, s.target, nil)
		}
		client, err := rueidis.NewClient(o)
		switch {
		case errors.Is(err, context.DeadlineExceeded): // the client library's, there is no other
			return driver.Errorf(driver.ErrUnavailable, "%s did not answer within %v", s.where, s.timeout)
		case err != nil:
			return s.asError(err)
		}
		*c.client = client
	}
	return nil
}

// prepare checks the server and opens or creates each shard.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.inspectServer(ctx); err != nil {
		return err
	}
	for _, sh := range s.shards {
		if err := s.openShard(ctx, sh); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) openShard(ctx context.Context, sh *shard) error {
	shards := ""
	if sh == s.hub() && (len(s.shards) > 1 || s.target.mode == cluster) {
		shards = strconv.Itoa(len(s.shards))
	}
	v, err := s.openMeta(ctx, sh, shards, "")
	if err != nil {
		return err
	}
	if shards != "" && v[2] == "" { // an earlier version made it
		found, err := s.countShards(ctx)
		if err != nil {
			return err
		}
		switch {
		case found > len(s.shards):
			return s.otherShards("more shards")
		case found < len(s.shards):
			return s.otherShards("shards=" + strconv.Itoa(found))
		}
		if v, err = s.openMeta(ctx, sh, shards, "1"); err != nil {
			return err
		}
	}
	if sh == s.hub() && v[2] != "" && v[2] != strconv.Itoa(len(s.shards)) {
		return s.otherShards("shards=" + v[2])
	}
	r := &sh.known
	r.mu.Lock()
	r.incarnation, r.byName, r.byQueue = v[0], map[string]*pair{}, map[string][]*pair{}
	r.configs = map[string]driver.QueueConfig{}
	r.mu.Unlock()
	return s.refresh(ctx, sh)
}

// openMeta runs the script that opens a shard.
func (s *Store) openMeta(ctx context.Context, sh *shard, shards, found string) ([]string, error) {
	args := []string{rand.Text(), strconv.Itoa(schema), strconv.Itoa(oldestSchema), shards, found}
	reply, err := s.call(ctx, s.control, sh, openScript, sh.keysOf(openScript, ""), args)
	if err != nil {
		return nil, err
	}
	v, err := reply.AsStrSlice()
	if err != nil || len(v) != 3 {
		return nil, driver.Errorf(driver.ErrCorrupt, "%s: the namespace %q holds something that is not a Waggle store", s.where, s.target.namespace)
	}
	return v, s.checkFormat(v[1])
}

// countShards returns how many shards a store has. It looks no further than behind the last that this program wants.
func (s *Store) countShards(ctx context.Context) (int, error) {
	for n := range len(s.shards) + 1 {
		v, err := s.hashFields(ctx, newShard(s.target.namespace, n), "meta", []string{"inc"})
		if err != nil || v[0] == "" {
			return n, err
		}
	}
	return len(s.shards) + 1, nil
}

// otherShards refuses to open a store of which this program would see another part than others: tasks would be lost from sight,
// and unique keys taken twice.
func (s *Store) otherShards(has string) error {
	return driver.Invalidf("%s, namespace %q, was made with %s, and this URL says %d: write the same number of shards into the URL for every program "+
		"(?shards=…), or name a new namespace (?ns=NAME)", s.where, s.target.namespace, has, len(s.shards))
}

// checkFormat refuses a store whose format this program does not know.
func (s *Store) checkFormat(text string) error {
	stored, err := strconv.Atoi(text)
	switch {
	case err != nil || stored < 1:
		return driver.Errorf(driver.ErrCorrupt, "%s: the namespace %q holds something that is not a Waggle store", s.where, s.target.namespace)
	case stored > schema:
		return driver.Errorf(driver.ErrUnsupported, "%s, namespace %q, was made by a newer version of this program (format %d, this one reads %d): update this program",
			s.where, s.target.namespace, stored, schema)
	case stored < schema:
		return driver.Errorf(driver.ErrUnsupported, "%s, namespace %q, was made by an older version of this program (format %d, this one reads %d): "+
			"finish its tasks with that version, or choose another namespace with ?ns=NAME", s.where, s.target.namespace, stored, schema)
	}
	return nil
}

// Capabilities implements driver.Store.
func (s *Store) Capabilities() driver.Capabilities { return s.caps }

// Close implements driver.Store.
func (s *Store) Close() error {
	s.closeErr.Do(func() {
		s.end()
		if s.watchers != nil {
			s.watchers.close()
		}
		for _, c := range []rueidis.Client{s.waiting, s.direct, s.data, s.control} {
			if c != nil {
				c.Close()
			}
		}
		s.wires.close()
	})
	return nil
}

func (s *Store) closed() bool { return s.life.Err() != nil }

// String names the store without credentials.
func (s *Store) String() string {
	return "redisstore " + strings.Join(s.target.addresses, ",") + " ns=" + s.target.namespace
}

// hub is the shard whose slot holds the wake tokens.
func (s *Store) hub() *shard { return s.shards[0] }

// tokensIn tells the fetch script of a shard whether wake tokens live there: 1, or 2 if they stand for work in other
// shards too.
func (s *Store) tokensIn(sh *shard) string {
	if sh.number == 0 && len(s.shards) > 1 {
		return "2"
	}
	return s.isHub(sh)
}

func (s *Store) isHub(sh *shard) string {
	if sh.number == 0 {
		return "1"
	}
	return "0"
}
