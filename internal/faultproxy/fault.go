package faultproxy

import (
	"fmt"
	"time"
)

// Direction is one way through the proxy.
type Direction int

// The two directions, and both for Set.
const (
	ClientToServer Direction = iota
	ServerToClient
	Both
)

// Mode is what happens to the bytes of a direction.
type Mode int

const (
	// Pass hands bytes on.
	Pass Mode = iota
	// Drop swallows bytes, and the end of the stream too, as if a cable were cut: the sender sees them accepted. A
	// connection that lost bytes can't go on, so when it is to pass bytes again it is cut (RST) instead.
	Drop
	// Blackhole hands nothing on and loses nothing: bytes, ends of streams and new connections wait, as they do behind a
	// network partition that TCP survives by sending again. The sender is slowed down once the buffers are full.
	Blackhole
)

// Fault is how the proxy treats a direction. The zero value passes everything on at once.
type Fault struct {
	Mode Mode
	// Delay holds every piece back this long, plus a random part of Jitter. Order is kept; throughput is not reduced.
	Delay, Jitter time.Duration
	// BytesPerSecond limits the rate of each connection; 0 means no limit.
	BytesPerSecond int
	// Slice is the most bytes in one write, each a packet of its own; 0 means no limit.
	Slice int
}

func (f Fault) validate() error {
	if f.Mode < Pass || f.Mode > Blackhole || f.Delay < 0 || f.Jitter < 0 || f.BytesPerSecond < 0 || f.Slice < 0 {
		return fmt.Errorf("faultproxy: unknown mode or negative value in %+v", f)
	}
	return nil
}

// Stats counts what went through a proxy since New. Bytes are those handed on, not those lost.
type Stats struct {
	// Accepted counts connections, Active those open now, Cut those ended by the proxy with RST.
	Accepted, Active, Cut int64
	// ToServer and ToClient are bytes.
	ToServer, ToClient int64
	// Lost counts the bytes swallowed in either direction.
	Lost int64
	// Commands and RepliesLost count commands seen and replies withheld; RESP only.
	Commands, RepliesLost int64
}
