package robustness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// TestServerDiskFull fills the disk of a server's file while tasks are enqueued and done, and gives the space back.
// With appendfsync everysec the server refuses writes and goes on by itself; with always it ends, and goes on when it
// is started again. Nothing accepted is lost in either case, by what the server reads from that file.
func TestServerDiskFull(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fullDisk{
		"redis everysec":  {redisserver.Options{AOF: redisserver.AOFEverySec}, driver.DurabilityMemory},
		"valkey everysec": {redisserver.Options{AOF: redisserver.AOFEverySec, Flavour: redisserver.Valkey}, driver.DurabilityDisk},
		"redis always":    {redisserver.Options{AOF: redisserver.AOFAlways}, driver.DurabilityDisk},
		"valkey always":   {redisserver.Options{AOF: redisserver.AOFAlways, Flavour: redisserver.Valkey}, driver.DurabilityDisk},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

type fullDisk struct {
	server redisserver.Options
	level  driver.Durability
}

func (f fullDisk) run(t *testing.T) {
	takeTurn(t)
	dir := smallDisk(t, "32m")
	f.server.Config = []string{"dir " + strconv.Quote(dir)}
	server := redistest.Start(t, &f.server)
	url := with(server.URL(), "timeout=3s", "durability="+string(f.level))
	c := newRedisCrew(t, url, url)
	c.runs(20)

	ballast := filepath.Join(dir, "ballast")
	release := fill(t, ballast)
	if f.server.AOF == redisserver.AOFAlways {
		must(t, until(t, func() error { // it can't keep its promise any more, and ends
			if server.Running() {
				return errors.New("the server is running")
			}
			return nil
		}))
	} else {
		must(t, until(t, func() error { return c.refused(waggle.ErrStoreFull) }))
		if _, err := c.client.Queue(t.Context(), waggle.DefaultQueue); err != nil {
			t.Errorf("reading fails while the disk is full: %v", err)
		}
	}
	release()
	if !server.Running() {
		must(t, server.Restart(t.Context()))
	}
	c.probe("space", recovered)
	c.rest()
	if f.server.AOF == redisserver.AOFAlways {
		server.Kill()
	}
	must(t, server.Restart(t.Context()))
	c.end(&history.Options{Recovery: 15 * time.Second})
	wantLostWithin(c, 0, nil)
}

// refused enqueues a task and returns an error unless it is refused as wanted.
func (c *crew) refused(want error) error {
	_, err := c.client.Enqueue(c.Context(), taskType, act{}, nil)
	if errors.Is(err, want) {
		return nil
	}
	return errors.Join(errors.New("a new task is not refused as it should be"), err)
}

// until repeats check until it returns nil, and returns its last error if that takes too long.
func until(t *testing.T, check func() error) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

// fill writes to a file for as long as the disk has a byte left, also one that others give back, until release is
// called, which removes the file.
func fill(t *testing.T, path string) (release func()) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	var enough atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		block := make([]byte, 64<<10)
		for !enough.Load() {
			if n, err := file.Write(block); err != nil || n < len(block) {
				block = block[:max(len(block)/2, 1)]
				_ = wait(t.Context(), time.Millisecond)
			}
		}
	}()
	return func() {
		enough.Store(true)
		<-done
		must(t, errors.Join(file.Close(), os.Remove(path)))
	}
}

// smallDisk mounts a small file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skipf("NOT TESTED ON A FULL DISK: mounting a small tmpfs needs root: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
