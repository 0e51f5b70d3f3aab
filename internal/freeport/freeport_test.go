package freeport_test

import (
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/waggleq/waggle/internal/freeport"
)

func TestTakeNeverHandsOutAPortTwice(t *testing.T) {
	t.Parallel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		owner = map[int]int{}
	)
	for caller := range 50 {
		wg.Go(func() {
			port, err := freeport.Take()
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, dup := owner[port]; dup {
				t.Errorf("port %d went to callers %d and %d", port, other, caller)
			}
			owner[port] = caller
		})
	}
	wg.Wait()
	for port := range owner {
		freeport.Release(port)
	}
}

func TestTakenPortCanBeListenedOn(t *testing.T) {
	t.Parallel()
	for range 20 { // another process may take a port in between, but not twenty times
		port, err := freeport.Take()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		freeport.Release(port)
		if err == nil {
			l.Close()
			return
		}
	}
	t.Fatal("twenty ports in a row could not be listened on")
}
