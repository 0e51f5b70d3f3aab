package stores

import (
	"context"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
	"github.com/waggleq/waggle/redisstore"
	"github.com/waggleq/waggle/sqlitestore"
)

// engines maps each URL scheme to its engine.
var engines map[string]opener

func init() {
	engines = map[string]opener{
		"memory": openMemory,
		"sqlite": openSQLite,

		"redis": openRedis, "rediss": openRedis,
		"valkey": openRedis, "valkeys": openRedis,
		"redis+unix": openRedis, "valkey+unix": openRedis,
		"redis-sentinel": openRedis, "rediss-sentinel": openRedis,
		"redis+cluster": openRedis, "rediss+cluster": openRedis,
	}
}

func openMemory(_ context.Context, _, rest string, _ bool) (driver.Store, error) {
	if rest != "" {
		return nil, driver.Invalidf("the memory store has no name: write memory:")
	}
	return memstore.Open(nil)
}

func openSQLite(ctx context.Context, _, rest string, mustExist bool) (driver.Store, error) {
	path, err := sqlitePath(rest)
	if err != nil {
		return nil, err
	}
	return sqlitestore.Open(ctx, path, &sqlitestore.Options{MustExist: mustExist})
}

func openRedis(ctx context.Context, scheme, rest string, _ bool) (driver.Store, error) {
	return redisstore.Open(ctx, scheme+":"+rest, nil)
}
