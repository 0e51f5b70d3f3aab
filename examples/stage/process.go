// Package stage is what examples of several processes have in common: the program starts itself again, once for each of its
// roles, freezes, kills and ends these processes, and leaves nothing behind.
package stage

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
)

// Command is this program again. The environment variable holds its role, as JSON: everybody can see arguments, and a role
// may hold the URL of a store with a password.
func Command(variable string, role any) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(role)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.SysProcAttr = childAttributes()
	return cmd, nil
}

// RoleOf returns the role that [Command] gave this process; nil if it has none.
func RoleOf[R any](variable string) (*R, error) {
	text := os.Getenv(variable)
	if text == "" {
		return nil, nil
	}
	var r R
	return &r, json.Unmarshal([]byte(text), &r)
}

// Spawn starts a process, calls listen, which returns when the process has closed its output, and reaps it.
//
// The operating system ties "die with the parent" to the thread that started the child, so one goroutine keeps that thread
// for itself until then.
func Spawn(cmd *exec.Cmd, ended chan<- struct{}, listen func()) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			listen()
			_ = cmd.Wait() // how it ended is in its ProcessState
			close(ended)
		}
	}()
	return <-started
}
