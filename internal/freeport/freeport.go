// Package freeport chooses loopback TCP ports for servers that a test or a demo starts and may restart.
//
// The ports lie below the range from which the common kernels pick ports for outgoing connections, so a port stays
// free while its server is down for a moment, which a port chosen by listening on ":0" does not. No two callers get the
// same port, in whatever process: as long as a port is taken, the UDP port of the same number is bound. Who does not use
// this package may still be faster, so a caller must try again when its bind fails.
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
	taken = map[int]net.PacketConn{} // each bound to the UDP port of that number
)

// Take returns a port on 127.0.0.1 that nobody listened on a moment ago and that no other caller gets until it is given to
// Release or this process ends. It may be called concurrently.
func Take() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range 500 {
		port := lowest + rand.IntN(highest-lowest)
		if taken[port] != nil {
			continue
		}
		claim, err := net.ListenPacket("udp", address(port))
		if err != nil {
			continue // another process has it
		}
		if free(port) {
			taken[port] = claim
			return port, nil
		}
		_ = claim.Close()
	}
	return 0, ErrNone
}

// Release gives ports back. Ports that were not taken are ignored.
func Release(ports ...int) {
	mu.Lock()
	defer mu.Unlock()
	for _, port := range ports {
		if claim := taken[port]; claim != nil {
			_ = claim.Close()
			delete(taken, port)
		}
	}
}

func free(port int) bool {
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
