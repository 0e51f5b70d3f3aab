package system

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

const (
	// downAfter is how long a server may be silent before the sentinels hold it for down.
	downAfter       = 2 * time.Second
	failoverTimeout = 3 * time.Second
	// askEvery is how often a sentinel asks a server for its replication offset, in milliseconds. It makes the one with the
	// greatest the next master, and has to know what it had after the old master's last word: the default is ten seconds.
	askEvery = "500"
	// greetEvery is how often sentinels greet each other, in milliseconds. A server that comes back is made a replica after
	// four times that: the default is two seconds.
	greetEvery = "500"
)

// database is B1, B2 and B3, the nodes of the database, and S1, S2 and S3, the sentinels that watch them.
type database struct {
	set *redisserver.SentinelSet
	dir string
}

// startDatabase starts the servers, of whichever product there is.
func startDatabase(ctx context.Context, dir string) (*database, error) {
	flavour, err := installed(ctx)
	if err != nil {
		return nil, err
	}
	set, err := redisserver.StartSentinel(ctx, &redisserver.SentinelOptions{
		Node:      redisserver.Options{Flavour: flavour, AOF: redisserver.AOFEverySec, Dir: dir, Config: []string{"repl-backlog-size 64mb"}},
		DownAfter: downAfter, FailoverTimeout: failoverTimeout, MasterName: "chat",
	})
	if err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "can't start the database: %w", err)
	}
	d := &database{set, dir}
	for _, s := range set.Sentinels {
		if err := d.tune(ctx, s); err != nil {
			return d, err
		}
	}
	return d, nil
}

// installed returns the product whose server program is on this machine.
func installed(ctx context.Context) (redisserver.Flavour, error) {
	for _, f := range []redisserver.Flavour{redisserver.Valkey, redisserver.Redis} {
		if _, err := redisserver.Find(ctx, f); err == nil {
			return f, nil
		}
	}
	return "", driver.Errorf(driver.ErrUnavailable, "the chat needs redis-server (7.0 or newer) or valkey-server (8.0 or newer): apt-get install redis-server")
}

// tune sets what a sentinel does not keep over its end.
func (d *database) tune(ctx context.Context, sentinel *redisserver.Server) error {
	_, err := sentinel.Do(ctx, "SENTINEL", "DEBUG", "INFO-PERIOD", askEvery, "PUBLISH-PERIOD", greetEvery)
	return err
}

// url is the store's: a chunk counts as stored when one replica has it. With all of two replicas the chat would stop as soon
// as one of them does.
func (d *database) url() string { return d.set.URL() + "?replicas=1&timeout=2s" }

func (d *database) product() string {
	if d.set.Nodes[0].Flavour() == redisserver.Valkey {
		return "Valkey"
	}
	return "Redis"
}

// member is a server of the database or a sentinel.
type member struct {
	name, kind string
	server     *redisserver.Server
}

func (d *database) members() []member {
	if d == nil {
		return nil
	}
	var all []member
	for i, s := range d.set.Nodes {
		all = append(all, member{fmt.Sprint("B", i+1), "server", s})
	}
	for i, s := range d.set.Sentinels {
		all = append(all, member{fmt.Sprint("S", i+1), "sentinel", s})
	}
	return all
}

// nameOf returns the name of a server, empty for nil.
func (d *database) nameOf(s *redisserver.Server) string {
	for _, m := range d.members() {
		if m.server == s {
			return m.name
		}
	}
	return ""
}

// start starts a server that has ended.
func (d *database) start(ctx context.Context, m member) error {
	err := m.server.Restart(ctx)
	if err == nil && m.kind == "sentinel" {
		err = d.tune(ctx, m.server)
	}
	return err
}

func (d *database) close() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.set.Close())
}
