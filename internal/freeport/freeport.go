// Package freeport chooses loopback TCP ports for servers that a test or a demo starts and may restart.
//
// The ports lie below the range from which the common kernels pick ports for outgoing connections, so a port stays
// free while its server is down for a moment, which a port chosen by listening on ":0" does not. No two callers in one
// process get the same port; another process may still be faster, so a caller must try again when its bind fails.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports on offer: above the well-known services, below Linux's default ephemeral range (32768 to 60999).
const (
	lowest  = 10000
	highest = 32000
)

// ErrNone reports that no free port was found in a few hundred tries.
var ErrNone = errors.New("freeport: no free loopback port between 10000 and 32000")

var (
	mu    sync.Mutex
	taken = map[int]bool{}
)

// Take returns a port on 127.0.0.1 that nobody listened on a moment ago and that no other caller in this process gets
// until it is given to Release. It may be called concurrently.
func Take() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range 500 {
		port := lowest + rand.IntN(highest-lowest)
		if !taken[port] && free(port) {
			taken[port] = true
			return port, nil
		}
	}
	return 0, ErrNone
}

// Release gives ports back. Ports that were not taken are ignored.
func Release(ports ...int) {
	mu.Lock()
	defer mu.Unlock()
	for _, port := range ports {
		delete(taken, port)
	}
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
