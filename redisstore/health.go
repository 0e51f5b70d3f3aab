package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// checkEvery is how often a running store looks whether the server is still safe to use.
const checkEvery = time.Minute

// serverInfo is what the store knows of a server.
type serverInfo struct {
	name     string // "Redis" or "Valkey"
	version  string
	major    int
	minor    int
	role     string
	aof      bool
	fsync    string // appendfsync
	policy   string // maxmemory-policy
	memory   int64  // maxmemory, bytes; 0: unbounded
	used     int64
	unknown  []string // settings that the server would not tell
	replicas int      // connected
	wanted   int      // replicas that the level replicated waits for
	silent   []string // nodes of the cluster that don't answer
}

// health is the state of the checks of a running store.
type health struct {
	mu       sync.Mutex
	at       time.Time
	every    time.Duration // 0: checkEvery; tests have less patience
	running  bool
	err      error // why the server must not be used for new tasks
	warnings []string
}

// refusal returns why new tasks are refused, if they are.
func (h *health) refusal() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// due reports, at most once a minute, that the checks are to be done.
func (h *health) due() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running || time.Since(h.at) < cmp.Or(h.every, checkEvery) {
		return false
	}
	h.running = true
	return true
}

func (h *health) set(err error, warnings []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at, h.running, h.err, h.warnings = time.Now(), false, err, warnings
}

// inspectServer checks every server of the store, and decides what the store offers.
func (s *Store) inspectServer(ctx context.Context) error {
	info, err := s.checkServers(ctx)
	if err != nil {
		return err
	}
	s.server = info
	s.caps = driver.Capabilities{
		Engine: "redis", Ordered: len(s.shards) == 1, Shared: true, Intake: true, Plans: true, Keys: true, Limits: true, Limit: s.options.Limits,
		Durability: []driver.Durability{driver.DurabilityMemory}, DefaultDurability: s.options.DefaultDurability,
	}
	if info.offersDisk() == nil {
		s.caps.Durability = append(s.caps.Durability, driver.DurabilityDisk)
	}
	if s.options.Replicas > 0 {
		s.caps.Durability = append(s.caps.Durability, driver.DurabilityReplicated)
	}
	s.caps.Stronger = info.stronger(s.options.DefaultDurability)
	if _, err := driver.ReachableDurability(s.caps, s.options.DefaultDurability); err != nil {
		if why := info.offersDisk(); why != nil && s.options.DefaultDurability == driver.DurabilityDisk {
			return why
		}
		return err
	}
	s.health.set(nil, info.warnings())
	return nil
}

// checkServers inspects all masters and returns what the first is like.
func (s *Store) checkServers(ctx context.Context) (serverInfo, error) {
	if s.target.mode != cluster {
		return s.checkServer(ctx, s.control)
	}
	search, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	for {
		info, err := s.checkMasters(ctx)
		if err != nil || info.version != "" {
			return info, err
		}
		// The client library has not heard of the latest failovers: it does when a call is sent on to another node.
		for _, sh := range s.shards {
			_, _ = s.hashFields(search, sh, "meta", []string{"inc"}) // only to be sent on
		}
		pause(search, 50*time.Millisecond)
		if search.Err() == nil {
			continue
		}
		return info, driver.Errorf(driver.ErrUnavailable, "%s: no master of the cluster was found", s.where)
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkMasters inspects the masters that the client library knows of. Without any the result has no version.
func (s *Store) checkMasters(ctx context.Context) (serverInfo, error) {
	var first serverInfo
	var silent []string
	for addr, node := range s.control.Nodes() {
		info, err := s.readServer(ctx, node)
		if errors.Is(err, driver.ErrUnavailable) && ctx.Err() == nil {
			silent = append(silent, addr) // a node may be down: its replica has its slots, or their calls fail
			continue
		}
		if err != nil {
			return info, fmt.Errorf("node %s: %w", addr, err)
		}
		if info.role != "master" {
			continue
		}
		if err := s.judge(&info); err != nil {
			return info, fmt.Errorf("node %s: %w", addr, err)
		}
		fewest := info.replicas
		if first.version != "" {
			fewest = min(fewest, first.replicas)
		}
		if first.version == "" || info.offersDisk() != nil {
			first = info
		}
		first.replicas = fewest
	}
	first.silent = silent
	return first, nil
}

func (s *Store) checkServer(ctx context.Context, c rueidis.Client) (serverInfo, error) {
	info, err := s.readServer(ctx, c)
	if err != nil {
		return info, err
	}
	return info, s.judge(&info)
}

// judge refuses a server on which tasks could vanish.
func (s *Store) judge(i *serverInfo) error {
	oldest := 7
	if i.name == "Valkey" {
		oldest = 8
	}
	switch {
	case i.major < oldest:
		return driver.Errorf(driver.ErrUnsupported, "%s is %s %s: Redis 7.0, Valkey 8.0 or newer is needed", s.where, i.name, i.version)
	case i.role != "master":
		return driver.Errorf(driver.ErrUnsupported, "%s is a replica: connect to its master, or through redis-sentinel://", s.where)
	case i.memory > 0 && i.policy != "" && i.policy != "noeviction":
		return driver.Errorf(driver.ErrUnsupported, "%s would evict tasks when its memory is full (maxmemory-policy %s): set `maxmemory-policy noeviction`", s.where, i.policy)
	}
	if s.options.RequireDisk || s.options.DefaultDurability == driver.DurabilityDisk {
		return i.offersDisk()
	}
	return nil
}

// offersDisk returns nil if the server can tell that a task is on disk, else what is to be done about it.
func (i *serverInfo) offersDisk() error {
	switch {
	case !i.aof:
		return driver.Errorf(driver.ErrUnsupported, "level \"disk\" needs an append-only file: set `appendonly yes` on the server")
	case i.fsync == "always" || i.waitAOF() && i.fsync == "everysec":
		return nil
	case i.waitAOF():
		return driver.Errorf(driver.ErrUnsupported, "level \"disk\" needs `appendfsync always` or `everysec` on the server, it has %q", i.fsync)
	default:
		return driver.Errorf(driver.ErrUnsupported, "level \"disk\" needs `appendfsync always` on a server before Redis 7.2, it has %q", i.fsync)
	}
}

// stronger says how to have tasks stored at the level above the default one.
func (i *serverInfo) stronger(level driver.Durability) string {
	switch {
	case level == driver.DurabilityReplicated:
		return ""
	case level == driver.DurabilityDisk:
		return "for level replicated give the server replicas, and set replicas=N and durability=replicated in the store's URL"
	case i.offersDisk() == nil:
		return "for level disk set durability=disk in the store's URL"
	case i.aof:
		return "for level disk set `appendfsync always` on the server, and durability=disk in the store's URL"
	}
	return "for level disk set `appendonly yes` on the server, and durability=disk in the store's URL"
}

// waitAOF reports whether the server has the command WAITAOF.
func (i *serverInfo) waitAOF() bool {
	return i.name == "Valkey" || i.major > 7 || i.major == 7 && i.minor >= 2
}

// warnings are what an operator should know, in sentences.
func (i *serverInfo) warnings() []string {
	var list []string
	if !i.aof {
		list = append(list, "The server has no append-only file: tasks that were accepted since its last snapshot are lost if it stops. Set `appendonly yes`.")
	}
	if i.memory == 0 {
		list = append(list, "The server has no maxmemory: a queue that grows without bound takes all memory of its machine. Set `maxmemory` and `maxmemory-policy noeviction`.")
	} else if i.used > i.memory/10*9 {
		list = append(list, fmt.Sprintf("The server uses %d of %d MiB: new tasks are refused when it is full.", i.used>>20, i.memory>>20))
	}
	if i.replicas < i.wanted {
		list = append(list, fmt.Sprintf("The level replicated waits for %d replicas, the server has %d: such tasks are not accepted until there are more.", i.wanted, i.replicas))
	}
	for _, addr := range i.silent {
		list = append(list, "The cluster's node "+addr+" does not answer.")
	}
	for _, name := range i.unknown {
		list = append(list, "The server does not tell its setting "+name+" (CONFIG GET is not permitted), so it is not checked.")
	}
	return list
}

// readServer asks a server what it is.
func (s *Store) readServer(ctx context.Context, c rueidis.Client) (serverInfo, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	text, err := c.Do(ctx, c.B().Info().Build()).ToString()
	if err != nil {
		return serverInfo{}, s.ended(ctx, err)
	}
	f := parseInfo(text)
	i := serverInfo{name: "Redis", version: f["redis_version"], role: f["role"], aof: f["aof_enabled"] == "1", policy: f["maxmemory_policy"]}
	if v := f["valkey_version"]; v != "" {
		i.name, i.version = "Valkey", v
	}
	i.memory, _ = strconv.ParseInt(f["maxmemory"], 10, 64)
	i.used, _ = strconv.ParseInt(f["used_memory"], 10, 64)
	i.wanted = s.options.Replicas
	i.replicas, _ = strconv.Atoi(f["connected_slaves"])
	major, rest, _ := strings.Cut(i.version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	i.major, _ = strconv.Atoi(major)
	i.minor, _ = strconv.Atoi(minor)
	conf, err := c.Do(ctx, c.B().ConfigGet().Parameter("appendfsync").Build()).AsStrMap()
	if err != nil {
		if _, refused := rueidis.IsRedisErr(err); !refused {
			return i, s.ended(ctx, err)
		}
		if i.aof {
			i.unknown = append(i.unknown, "appendfsync")
		}
	}
	i.fsync = conf["appendfsync"]
	return i, nil
}

func parseInfo(text string) map[string]string {
	f := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			f[k] = v
		}
	}
	return f
}

// checkUp repeats the checks of Open, once a minute, on behalf of whoever calls. A server that has become unsafe gets no
// more new tasks; what it has can still be drained.
func (s *Store) checkUp(ctx context.Context) {
	if !s.health.due() {
		return
	}
	info, err := s.checkServers(ctx)
	switch class := driver.ClassOf(err); {
	case err == nil:
		s.health.set(nil, info.warnings())
	case class.Err == driver.ErrUnsupported:
		s.health.set(err, append(info.warnings(), "New tasks are refused: "+err.Error()+"."))
	default:
		s.health.set(s.health.refusal(), nil) // it can't be asked now
	}
}

// Info implements driver.Inspector.
func (s *Store) Info(ctx context.Context) (*driver.StoreInfo, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	info, err := s.checkServers(ctx)
	class := driver.ClassOf(err)
	if err != nil && class.Err != driver.ErrUnsupported {
		return nil, err
	}
	warnings := info.warnings()
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	incarnation, _, _ := s.hub().known.versions()
	return &driver.StoreInfo{Engine: s.caps.Engine, Version: info.name + " " + info.version, Incarnation: incarnation, Schema: schema,
		Now: now, Bytes: info.used, Warnings: warnings}, nil
}
