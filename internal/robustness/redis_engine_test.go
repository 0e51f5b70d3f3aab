package robustness

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// createRedis starts a server for one test.
func createRedis(t testing.TB) string { return redistest.Start(t, nil).URL() }

// createValkey is createRedis for the other product.
func createValkey(t testing.TB) string {
	return redistest.Start(t, &redisserver.Options{Flavour: redisserver.Valkey}).URL()
}

// openRedis opens a store on a server. Its clock is the server's, which no test may set. The URL may carry options that
// the store's own URLs don't have: level, timeout, replicas and check (how often the server is looked at).
func openRedis(ctx context.Context, text string, clock func() time.Time) (driver.Store, error) {
	if clock != nil {
		return nil, fmt.Errorf("the clock of %s can't be set", text)
	}
	base, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	o := redisstore.Options{DefaultDurability: driver.Durability(values.Get("level"))}
	for name, d := range map[string]*time.Duration{"timeout": &o.Timeout} {
		if *d, err = time.ParseDuration(cmp.Or(values.Get(name), "0s")); err != nil {
			return nil, err
		}
		values.Del(name)
	}
	if o.Replicas, err = strconv.Atoi(cmp.Or(values.Get("replicas"), "0")); err != nil {
		return nil, err
	}
	values.Del("replicas")
	values.Del("level")
	if len(values) > 0 {
		base += "?" + values.Encode()
	}
	return redisstore.Open(ctx, base, &o)
}
