package redisserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The shape of a Sentinel set: any two sentinels of three decide.
const (
	sentinels        = 3
	sentinelReplicas = 2
	sentinelQuorum   = 2
)

// SentinelOptions describe a Sentinel set. The zero value is useful.
type SentinelOptions struct {
	// Node describes master and replicas. ReplicaOf must be unset; of it the sentinels share Flavour, TLS and Dir.
	Node Options
	// MasterName is the name the sentinels know the master by; empty means "waggle".
	MasterName string
	// DownAfter is the silence after which a sentinel holds a server for down; 0 means 1 s.
	DownAfter time.Duration
	// FailoverTimeout bounds the steps of a failover; 0 means 5 s.
	FailoverTimeout time.Duration
}

func (o *SentinelOptions) withDefaults() *SentinelOptions {
	var filled SentinelOptions
	if o != nil {
		filled = *o
	}
	filled.MasterName = cmp.Or(filled.MasterName, "waggle")
	filled.DownAfter = cmp.Or(filled.DownAfter, time.Second)
	filled.FailoverTimeout = cmp.Or(filled.FailoverTimeout, 5*time.Second)
	filled.Node.secret = rand.Text()
	return &filled
}

func (o *SentinelOptions) validate() error {
	if o.Node.ReplicaOf != nil || o.DownAfter < 0 || o.FailoverTimeout < 0 || strings.ContainsAny(o.MasterName, " \r\n") {
		return errors.New("redisserver: a Sentinel set needs a master of its own, positive times and a name without spaces")
	}
	return nil
}

// watch is what a sentinel watches.
type watch struct {
	*SentinelOptions
	master *Server
}

// config returns the settings of a sentinel besides where it listens.
func (w *watch) config() []string {
	name := w.MasterName
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", name, w.master.port, sentinelQuorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", name, w.DownAfter.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s %d", name, w.FailoverTimeout.Milliseconds()),
	}
	user, password := w.master.control()
	if user != "" {
		lines = append(lines, "sentinel auth-user "+name+" "+user)
	}
	if password != "" {
		lines = append(lines, "sentinel auth-pass "+name+" "+password)
	}
	return lines
}

// SentinelSet is one master, two replicas and three sentinels. All methods may be called concurrently.
type SentinelSet struct {
	// Nodes are the data servers; the first was the first master. Sentinels watch them. Neither slice may be changed.
	Nodes, Sentinels []*Server

	o *SentinelOptions
}

// StartSentinel starts a set and returns when every sentinel knows the master, both replicas and the other sentinels.
// The context bounds the start only.
func StartSentinel(ctx context.Context, o *SentinelOptions) (*SentinelSet, error) {
	set := &SentinelSet{o: o.withDefaults()}
	if err := set.o.validate(); err != nil {
		return nil, err
	}
	if err := set.start(ctx); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

func (set *SentinelSet) start(ctx context.Context) error {
	master, err := Start(ctx, &set.o.Node)
	if err != nil {
		return err
	}
	started := make([]*Server, sentinelReplicas+sentinels)
	err = each(started, func(i int, _ *Server) (err error) {
		if i < sentinelReplicas {
			replica := set.o.Node
			replica.ReplicaOf = master
			started[i], err = Start(ctx, &replica)
		} else {
			started[i], err = set.startSentinel(ctx, master)
		}
		return err
	})
	set.Nodes = append([]*Server{master}, started[:sentinelReplicas]...)
	set.Sentinels = started[sentinelReplicas:]
	if err != nil {
		return err
	}
	return set.meet(ctx)
}

func (set *SentinelSet) startSentinel(ctx context.Context, master *Server) (*Server, error) {
	n := set.o.Node
	s, err := prepare(ctx, &Options{Flavour: n.Flavour, TLS: n.TLS, TLSClientCert: n.TLSClientCert, Dir: n.Dir}, sentinel)
	if err != nil {
		return nil, err
	}
	s.watch = &watch{SentinelOptions: set.o, master: master}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// meet waits until the sentinels have found each other, with their greetings sped up for that time. Their periods for
// the failover itself are the products' defaults.
func (set *SentinelSet) meet(ctx context.Context) error {
	return each(set.Sentinels, func(_ int, s *Server) error {
		// The defaults, in ms: INFO every 10 s, a greeting every 2 s.
		if _, err := s.Do(ctx, "SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"); err != nil {
			return err
		}
		if err := await(ctx, "sentinels to know each other", func(ctx context.Context) error { return set.complete(ctx, s) }); err != nil {
			return err
		}
		_, err := s.Do(ctx, "SENTINEL", "DEBUG", "INFO-PERIOD", "10000", "PUBLISH-PERIOD", "2000")
		return err
	})
}

// complete reports whether a sentinel knows the whole set.
func (set *SentinelSet) complete(ctx context.Context, s *Server) error {
	v, err := s.Do(ctx, "SENTINEL", "MASTER", set.o.MasterName)
	if err != nil {
		return err
	}
	m := pairs(v.Strings())
	if m["flags"] != "master" || m["num-slaves"] != strconv.Itoa(sentinelReplicas) || m["num-other-sentinels"] != strconv.Itoa(sentinels-1) {
		return fmt.Errorf("sentinel %s sees flags %s, %s replicas, %s other sentinels", s.Addr(), m["flags"], m["num-slaves"], m["num-other-sentinels"])
	}
	if _, err = s.Do(ctx, "SENTINEL", "CKQUORUM", set.o.MasterName); err != nil {
		return err
	}
	replicas, err := s.Do(ctx, "SENTINEL", "REPLICAS", set.o.MasterName)
	if err != nil {
		return err
	}
	for _, r := range replicas.Elems {
		if m := pairs(r.Strings()); m["flags"] != "slave" || m["master-link-status"] != "ok" {
			return fmt.Errorf("sentinel %s sees replica %s with flags %s, link %s", s.Addr(), m["name"], m["flags"], m["master-link-status"])
		}
	}
	return nil
}

// MasterName returns the name the sentinels know the master by.
func (set *SentinelSet) MasterName() string { return set.o.MasterName }

// Addrs returns the addresses of the sentinels.
func (set *SentinelSet) Addrs() []string { return addrs(set.Sentinels) }

// URL returns redis-sentinel://:password@sentinel,sentinel,sentinel/name.
func (set *SentinelSet) URL() string {
	u := url.URL{Scheme: "redis-sentinel", Host: strings.Join(set.Addrs(), ","), Path: "/" + set.o.MasterName}
	if p := set.o.Node.Password; p != "" {
		u.User = url.UserPassword("", p)
	}
	return u.String()
}

// Master returns the server on which the sentinels that answer agree, and which says itself that it is the master.
func (set *SentinelSet) Master(ctx context.Context) (*Server, error) {
	var master *Server
	for _, s := range set.Sentinels {
		if !s.responsive() {
			continue
		}
		v, err := s.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", set.o.MasterName)
		if err != nil {
			return nil, err
		}
		m := byAddr(set.Nodes, net.JoinHostPort("127.0.0.1", v.Strings()[len(v.Elems)-1]))
		if m == nil || (master != nil && m != master) {
			return nil, fmt.Errorf("redisserver: the sentinels do not agree: one says %v", v.Strings())
		}
		master = m
	}
	if master == nil {
		return nil, fmt.Errorf("%w: no sentinel answers", ErrNotRunning)
	}
	v, err := master.Do(ctx, "ROLE")
	if err != nil {
		return nil, err
	}
	if role := v.Elems[0].Text; role != "master" {
		return nil, fmt.Errorf("redisserver: %s should be the master but is %s", master.Addr(), role)
	}
	return master, nil
}

// KillMaster kills the current master with SIGKILL and returns it. Its Restart makes it a replica of the next one.
func (set *SentinelSet) KillMaster(ctx context.Context) (*Server, error) {
	m, err := set.Master(ctx)
	if err == nil {
		m.Kill()
	}
	return m, err
}

// PauseMaster stops the current master with SIGSTOP and returns it, for Resume.
func (set *SentinelSet) PauseMaster(ctx context.Context) (*Server, error) {
	m, err := set.Master(ctx)
	if err == nil {
		err = m.Pause()
	}
	return m, err
}

// WaitFailover waits until all sentinels that answer agree on a master other than old, and returns it.
func (set *SentinelSet) WaitFailover(ctx context.Context, old *Server) (*Server, error) {
	var master *Server
	err := await(ctx, "failover", func(ctx context.Context) (err error) {
		if master, err = set.Master(ctx); err == nil && master == old {
			err = fmt.Errorf("%s is still the master", old.Addr())
		}
		return err
	})
	return master, err
}

// Close kills all servers and removes their directories.
func (set *SentinelSet) Close() error { return closeAll(slices.Concat(set.Nodes, set.Sentinels)) }

// Servers returns data servers and sentinels.
func (set *SentinelSet) Servers() []*Server { return slices.Concat(set.Nodes, set.Sentinels) }

func closeAll(servers []*Server) error {
	return each(servers, func(_ int, s *Server) error {
		if s == nil {
			return nil
		}
		return s.Close()
	})
}

func addrs(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr()
	}
	return list
}

func byAddr(servers []*Server, addr string) *Server {
	for _, s := range servers {
		if s.Addr() == addr {
			return s
		}
	}
	return nil
}

// pairs makes a map of a flat list of names and values.
func pairs(flat []string) map[string]string {
	m := map[string]string{}
	for pair := range slices.Chunk(flat, 2) {
		if len(pair) == 2 {
			m[pair[0]] = pair[1]
		}
	}
	return m
}
