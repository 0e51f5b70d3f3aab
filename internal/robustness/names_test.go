package robustness

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// names is the name server of this process. All lookups of names that are not in the machine's own file go to it.
var names = newNameServer()

// nameServer answers the standard library's resolver, over connections that don't leave the process.
type nameServer struct {
	mu      sync.Mutex
	hosts   map[string]nameEntry
	changed chan struct{} // closed and replaced with each change
}

type nameEntry struct {
	address netip.Addr
	trouble nameTrouble
}

// nameTrouble is what is wrong with a name.
type nameTrouble int

// The troubles: the server has failed, there is no such name, there is no answer until that changes.
const (
	noTrouble nameTrouble = iota
	nameFails
	nameGone
	nameSilent
)

func newNameServer() *nameServer {
	s := &nameServer{hosts: map[string]nameEntry{}, changed: make(chan struct{})}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: s.dial}
	return s
}

// set gives a name an address, which may be in trouble.
func (s *nameServer) set(name, ip string, t nameTrouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[name] = nameEntry{netip.MustParseAddr(ip), t}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *nameServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go s.serve(server)
	return client, nil
}

// serve answers the questions of a connection, which come as over TCP: each with its length before it.
func (s *nameServer) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer, changed := s.answer(question)
		for answer == nil { // it is answered late, so that a lookup which others have joined meanwhile does not fail them
			<-changed
			answer, changed = s.answer(question)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer returns the reply to a question, nil for none, and what is closed when it may have become another.
func (s *nameServer) answer(q []byte) ([]byte, <-chan struct{}) {
	const header, typeA, serverFailure, noSuchName = 12, 1, 2, 3
	var labels []string
	at := header
	for ; q[at] != 0; at += 1 + int(q[at]) {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
	}
	end := at + 5 // the root label, type and class
	kind := binary.BigEndian.Uint16(q[at+1:])

	s.mu.Lock()
	host, known := s.hosts[strings.ToLower(strings.Join(labels, "."))]
	changed := s.changed
	s.mu.Unlock()
	code := byte(0)
	switch {
	case host.trouble == nameSilent:
		return nil, changed
	case host.trouble == nameFails:
		code = serverFailure
	case !known || host.trouble == nameGone:
		code = noSuchName
	}
	answers := byte(0)
	if code == 0 && kind == typeA {
		answers = 1
	}
	reply := append([]byte{q[0], q[1], 0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0}, q[header:end]...)
	if answers == 1 { // the name of the question, an address, the internet, for no time, of four bytes
		ip := host.address.As4()
		reply = append(append(reply, 0xC0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
	}
	return reply, changed
}
