// Package wire is what the program that starts the chat and the processes it starts say to each other: lines of JSON over
// their standard input and output. There is no port for it, so nobody else can join in.
package wire

import (
	"time"

	"github.com/waggleq/waggle/examples/stage"
)

// RoleVariable is the environment variable that makes the program one of the chat's processes; it holds a [Role].
const RoleVariable = "WAGGLE_CHAT_ROLE"

// Role says what a process is. It is no argument, as everybody can see those, and a store's URL may hold a password.
type Role struct {
	Kind  string `json:"kind"` // web, worker or sweep
	Name  string `json:"name"` // A1
	Store string `json:"store,omitzero"`
	// Of a web server: the port it listens on, those of all web servers by name, and the room it shows.
	Port  int            `json:"port,omitzero"`
	Peers map[string]int `json:"peers,omitzero"`
	Room  string         `json:"room,omitzero"`
	// Of a sweeper: the directory that it removes.
	Dir string `json:"dir,omitzero"`
}

// RoleOf returns the role of this process; nil if it has none.
func RoleOf() (*Role, error) { return stage.RoleOf[Role](RoleVariable) }

// The kinds of nodes.
const (
	Web      = "web"
	Worker   = "worker"
	Server   = "server"   // of the database
	Sentinel = "sentinel" // watches the servers
	Store    = "store"    // one that was there before
)

// The states of nodes.
const (
	Running  = "running"
	Frozen   = "frozen"
	Dead     = "dead"
	Starting = "starting"
)

// Node is one process of the system.
type Node struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	State string `json:"state"`
	PID   int    `json:"pid,omitzero"`
	Addr  string `json:"addr,omitzero"`
	// Can are the actions that make sense now: kill, freeze, thaw, start. None where the chat did not start it.
	Can []string `json:"can,omitempty"`
	// Of a server.
	Role      string `json:"role,omitzero"` // master or replica
	Offset    int64  `json:"offset,omitzero"`
	Reachable bool   `json:"reachable,omitzero"` // it answered within the last second
	// Of a web server: its users. Of a worker: the chunks that it holds.
	Users int `json:"users,omitzero"`
	Holds int `json:"holds,omitzero"`
}

// State is the system at one moment.
type State struct {
	Nodes []Node `json:"nodes"`
	Queue Queue  `json:"queue"`
}

// Queue is what is in the queue. Known is false while nobody can tell.
type Queue struct {
	Known     bool  `json:"known"`
	Waiting   int   `json:"waiting"`
	Running   int   `json:"running"`
	Done      int64 `json:"done"`
	Discarded int64 `json:"discarded"`
}

// Line is a sentence on what happened.
type Line struct {
	Number int       `json:"number"` // 1, 2, 3, …
	At     time.Time `json:"at"`
	Text   string    `json:"text"`
	Tone   string    `json:"tone,omitzero"` // bad, good, or nothing
}

// Request asks for something to be done to a node.
type Request struct {
	ID     int64  `json:"id"`
	Node   string `json:"node"`
	Action string `json:"action"`
}

// Answer is the answer to a request; an empty error means that it was done.
type Answer struct {
	ID    int64  `json:"id"`
	Error string `json:"error,omitzero"`
}

// ToProcess is a line to a process, FromProcess one from it. One of the fields is set.
type ToProcess struct {
	State  *State  `json:"state,omitzero"`
	Line   *Line   `json:"line,omitzero"`
	Answer *Answer `json:"answer,omitzero"`
}

// FromProcess is a line from a process.
type FromProcess struct {
	Ready   bool     `json:"ready,omitzero"` // it serves, or works
	Users   *int     `json:"users,omitzero"`
	Request *Request `json:"request,omitzero"`
}
