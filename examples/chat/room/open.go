package room

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/stores"
)

// Place is where the chat keeps everything: the queue and, beside it, the rooms.
type Place struct {
	Store    driver.Store
	Client   *waggle.Client
	Database Database
	Level    waggle.Durability // the strongest that the store offers
}

// Open opens the place that a store's URL names. The URL can be any that Waggle knows, but for the store in memory, which no
// second process could see.
func Open(ctx context.Context, storeURL string, log *slog.Logger) (*Place, error) {
	store, err := stores.Open(ctx, storeURL)
	if err != nil {
		return nil, err
	}
	p := &Place{Store: store}
	if err := p.complete(storeURL, log); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Place) complete(storeURL string, log *slog.Logger) (err error) {
	caps := p.Store.Capabilities()
	if !caps.Shared {
		return driver.Errorf(driver.ErrUnsupported, "a chat has several processes, and the %s store is seen by one only: use redis:, sqlite: or another", caps.Engine)
	}
	if p.Client, err = waggle.NewClient(p.Store, &waggle.ClientOptions{Logger: log}); err != nil {
		return err
	}
	if p.Level, err = StrongestLevel(p.Client); err != nil {
		return err
	}
	switch caps.Engine {
	case "redis":
		p.Database, err = openRedis(storeURL)
	case "sqlite":
		p.Database, err = openSQLite(besides(storeURL))
	default:
		err = driver.Errorf(driver.ErrUnsupported, "the chat has no database for the %s store", caps.Engine)
	}
	return err
}

// besides is the file of the rooms beside the file of a SQLite store.
func besides(storeURL string) string {
	path := strings.TrimPrefix(strings.TrimPrefix(storeURL, "sqlite:"), "//")
	return strings.TrimSuffix(path, ".db") + "-rooms.db"
}

// Close closes all of it.
func (p *Place) Close() error {
	var errs []error
	if p.Database != nil {
		errs = append(errs, p.Database.Close())
	}
	return errors.Join(append(errs, p.Store.Close())...)
}
