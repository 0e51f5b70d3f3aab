package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// Connect returns a client of the servers that a store's URL names, for a program that keeps data of its own beside the
// queue. It has what Open has from the URL: credentials and TLS, read again for each new connection, and behind Sentinel the
// check that each new connection is one to the master. Of opts it needs the Timeout: a connection whose idle server is
// silent for so long is given up.
//
// Keys that begin with "waggle:" are the store's. The caller closes the client. It returns [driver.ErrInvalid] for a URL or
// options that can't be, and [driver.ErrUnavailable] for servers that can't be reached.
func Connect(url string, opts *Options) (rueidis.Client, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o, err := opts.withDefaults(t)
	if err != nil {
		return nil, err
	}
	c := &ownClient{}
	option := t.clientOption()
	option.Dialer.Timeout, option.ConnWriteTimeout = o.Timeout, o.Timeout
	option.Dialer.KeepAlive = time.Second // how often an idle connection is asked for life
	if t.mode == sentinel {
		c.watchers = newWatchers(t, o.Timeout)
		c.watchers.option(&option)
		c.wires.option(&option, t, c.watchers.permit)
	} else {
		c.wires.option(&option, t, nil)
	}
	if c.Client, err = rueidis.NewClient(option); err != nil {
		c.release()
		return nil, connectError(t, o.Timeout, err)
	}
	return c, nil
}

func connectError(t *target, timeout time.Duration, err error) error {
	s := &Store{target: t, where: whereIs(t), life: context.Background()} // for the words alone
	if errors.Is(err, context.DeadlineExceeded) {
		return driver.Errorf(driver.ErrUnavailable, "%s did not answer within %v", s.where, timeout)
	}
	return s.asError(err)
}

// ownClient is a client whose connections and sentinels end with it.
type ownClient struct {
	rueidis.Client
	wires    connections
	watchers *watchers // nil without Sentinel
}

// Close implements rueidis.Client.
func (c *ownClient) Close() {
	c.Client.Close()
	c.release()
}

func (c *ownClient) release() {
	if c.watchers != nil {
		c.watchers.close()
	}
	c.wires.close()
}
