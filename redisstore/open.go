// Package redisstore keeps a Waggle queue in Redis (7.0 or newer) or Valkey (8.0 or newer): on one server, behind
// Sentinel, or spread over a Cluster. See [Open] for the URLs.
//
// A shard is one hash slot and holds a complete queue; a Cluster has many, together they are one logical queue. All that
// has to be atomic is a script of lua/. The server's memory bounds the queue: set maxmemory-policy to noeviction.
package redisstore

import (
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
// runs. A store is brought to the newest version when it is opened; see lua/open.lua.
const (
	schema       = 2
	oldestSchema = 1
)

// Options are what Open can be told beside the URL. The zero value of a field means its default.
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

func (o *Options) withDefaults() (Options, error) {
	var v Options
	if o != nil {
		v = *o
	}
	limits, err := v.Limits.WithDefaults()
	if err != nil {
		return v, err
	}
	v.Limits = limits
	if v.Timeout < 0 || v.Replicas < 0 {
		return v, driver.Invalidf("the timeout and the number of replicas must not be negative, got %v and %d", v.Timeout, v.Replicas)
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
	data    rueidis.Client // claims, settlements, new tasks
	control rueidis.Client // leases, inspection: never behind a queue of large batches
	waiting rueidis.Client // calls that block

	target    *target
	where     string // the server, for messages
	secrets   []string
	timeout   time.Duration
	maxEvents string
	// intakeCaller names this handle among those that move the same intake list.
	intakeCaller  string
	intakeRespect time.Duration
	options       Options
	caps          driver.Capabilities
	shards        []*shard
	server        serverInfo

	offset  atomic.Int64 // ms added to the clock, by tests only
	next    atomic.Uint32
	workers sync.Map // worker id → driver.WorkerInfo, of those registered here
	rounds  sync.Map // worker id → *rounds, of those that fetch from several shards
	awoken  sync.Map // ids of workers whose last wait was ended by a token

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
//	redis-sentinel://[user:password@]host:26379,host:26379/master
//	redis+cluster://[user:password@]host,host[?shards=16]
//
// It returns [driver.ErrInvalid] for a URL or options that can't be, [driver.ErrUnsupported] for a server that is too old
// or configured so that tasks could vanish, and [driver.ErrUnavailable] for one that can't be reached. Errors say what to
// do and show no credentials.
func Open(ctx context.Context, url string, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	s := &Store{
		target: t, secrets: t.secrets, options: o, timeout: o.Timeout, maxEvents: strconv.Itoa(max(o.MaxEvents, 0)),
		intakeCaller: rand.Text(), intakeRespect: intakeRespect,
		where: "the store at " + strings.Join(t.addresses, ","),
	}
	s.life, s.end = context.WithCancel(context.Background())
	for i := range t.shards {
		s.shards = append(s.shards, newShard(t.namespace, i))
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

// pingEvery is how often the client library asks an idle connection for a sign of life. Its default, every second, is a good
// part of what an idle worker sends.
const pingEvery = 2 * time.Second

func (s *Store) connect() error {
	for _, c := range []struct {
		client *rueidis.Client
		shape  func(*rueidis.ClientOption)
	}{
		{&s.control, func(o *rueidis.ClientOption) {
			o.PipelineMultiplex, o.BlockingPoolSize = -1, 8
			o.DisableRetry = s.target.mode == standalone // only what reads is ever repeated, and only another node may answer
		}},
		{&s.data, func(o *rueidis.ClientOption) { o.PipelineMultiplex = 1; o.BlockingPoolSize = 256 }},
		{&s.waiting, func(o *rueidis.ClientOption) { o.PipelineMultiplex = -1; o.BlockingPoolSize = 4096 }},
	} {
		o := s.target.clientOption()
		o.Dialer.Timeout = s.timeout
		o.Dialer.KeepAlive = pingEvery
		o.ConnWriteTimeout = 2 * s.timeout
		c.shape(&o)
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
	reply, err := s.call(ctx, s.control, sh, openScript, sh.keysOf(openScript, ""), []string{rand.Text(), strconv.Itoa(schema), strconv.Itoa(oldestSchema)})
	if err != nil {
		return err
	}
	v, err := reply.AsStrSlice()
	if err != nil || len(v) != 2 {
		return driver.Errorf(driver.ErrCorrupt, "%s: the namespace %q holds something that is no Waggle store", s.where, s.target.namespace)
	}
	if v[1] != strconv.Itoa(schema) {
		return driver.Errorf(driver.ErrUnsupported, "%s has format version %s, this program reads version %d: use a matching version of Waggle",
			s.where, v[1], schema)
	}
	r := &sh.known
	r.mu.Lock()
	r.incarnation, r.byName, r.byQueue = v[0], map[[2]string]*pair{}, map[string][]*pair{}
	r.configs = map[string]driver.QueueConfig{}
	r.mu.Unlock()
	return s.refresh(ctx, sh)
}

// Capabilities implements driver.Store.
func (s *Store) Capabilities() driver.Capabilities { return s.caps }

// Close implements driver.Store.
func (s *Store) Close() error {
	s.closeErr.Do(func() {
		s.end()
		for _, c := range []rueidis.Client{s.waiting, s.data, s.control} {
			if c != nil {
				c.Close()
			}
		}
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

func (s *Store) isHub(sh *shard) string {
	if sh.number == 0 {
		return "1"
	}
	return "0"
}
