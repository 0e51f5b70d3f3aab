package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/waggleq/waggle/internal/redisserver"
)

// backend is an empty store for one measurement.
type backend interface {
	// URL is how a contestant reaches it.
	URL() string
	// Size is how many bytes its data takes now: of memory or of disk, as the store keeps it.
	Size(ctx context.Context) (int64, error)
	// CPU is the time its server has used so far; 0 if there is none.
	CPU() (time.Duration, error)
	Close() error
}

// stores opens backends in one directory. Its servers end with Close.
type stores struct {
	dir string

	mu       sync.Mutex
	postgres *postgres // started when first needed
	count    int
}

func newStores(parent string) (*stores, error) {
	dir, err := os.MkdirTemp(parent, "waggle-bench-")
	if err != nil {
		return nil, err
	}
	return &stores{dir: dir}, os.Chmod(dir, 0o711) // PostgreSQL runs as another user
}

// open returns a new empty store of this kind.
func (s *stores) open(ctx context.Context, kind storeKind) (backend, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	switch kind {
	case redisStore:
		server, err := redisserver.Start(ctx, nil)
		if err != nil {
			return nil, err
		}
		return redisBackend{server}, nil
	case sqliteStore:
		dir := filepath.Join(s.dir, "sqlite-"+strconv.Itoa(s.count))
		return sqliteBackend{dir}, os.Mkdir(dir, 0o700)
	case postgresStore:
		if s.postgres == nil {
			server, err := startPostgres(ctx, filepath.Join(s.dir, "postgres"))
			if err != nil {
				return nil, err
			}
			s.postgres = server
		}
		return s.postgres.createDatabase(ctx, "bench"+strconv.Itoa(s.count))
	}
	return nil, fmt.Errorf("unknown kind of store %q", kind)
}

func (s *stores) Close() error {
	var err error
	if s.postgres != nil {
		err = s.postgres.stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// redisBackend is a Redis server of its own: no append-only file, no snapshots.
type redisBackend struct{ *redisserver.Server }

func (r redisBackend) Size(ctx context.Context) (int64, error) {
	info, err := r.Info(ctx, "memory")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(info["used_memory"], 10, 64)
}

func (r redisBackend) CPU() (time.Duration, error) { return treeCPU(r.PID()) }

// sqliteBackend is a directory for one database file. There is no server.
type sqliteBackend struct{ dir string }

func (s sqliteBackend) URL() string { return "sqlite:" + filepath.Join(s.dir, "waggle.db") }

func (s sqliteBackend) Size(context.Context) (total int64, err error) {
	err = filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

func (s sqliteBackend) CPU() (time.Duration, error) { return 0, nil }

func (s sqliteBackend) Close() error { return os.RemoveAll(s.dir) }
