package robustness

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// createRedis starts a server for one test.
func createRedis(t testing.TB) string { return redistest.Start(t, nil).URL() }

// openRedis opens a store on a server. Its clock is the server's, which no test may set.
func openRedis(ctx context.Context, url string, clock func() time.Time) (driver.Store, error) {
	if clock != nil {
		return nil, fmt.Errorf("the clock of %s can't be set", url)
	}
	return redisstore.Open(ctx, url, nil)
}
