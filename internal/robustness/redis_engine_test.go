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
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// createRedis starts a server for one test.
func createRedis(t testing.TB) string { return redistest.Start(t, nil).URL() }

// openRedis opens a store on a server. Its clock is the server's, which no test may set. The URL may carry options that
// the store's own URLs don't have: level, timeout and replicas.
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
	if o.Timeout, err = time.ParseDuration(cmp.Or(values.Get("timeout"), "0s")); err != nil {
		return nil, err
	}
	if o.Replicas, err = strconv.Atoi(cmp.Or(values.Get("replicas"), "0")); err != nil {
		return nil, err
	}
	for _, name := range []string{"level", "timeout", "replicas"} {
		values.Del(name)
	}
	if len(values) > 0 {
		base += "?" + values.Encode()
	}
	return redisstore.Open(ctx, base, &o)
}
