package execwork

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// On Linux a worker starts its commands through a keeper: a child process that is the parent of all commands, and the
// subreaper of all that they start, so that nothing can leave it, by a group, a session or a double fork of its own. When
// the connection to its worker ends, however the worker has ended, the keeper kills all that is below it. When the keeper
// itself is killed its commands die at once (PR_SET_PDEATHSIG), and the worker, a subreaper too, kills the rest.
//
// The worker sends the keeper one message for each command, with four files: a connection for this command, and its
// standard input, output and error. On that connection go a spec and then signals one way, and replies the other.

// KeepCommand is the argument with which a program that uses this package has to call [Keep] and nothing else.
const KeepCommand = "__keep"

// errKeeper is why a command that ran is gone: its keeper is.
var errKeeper = fmt.Errorf("%w, or was killed: the process that keeps this worker's commands has ended", ErrNotStarted)

// errNoProc says that there is no /proc to start a keeper from: commands are started without one.
var errNoProc = errors.New("there is no /proc")

// The signals that a worker sends.
const (
	askTerminate = 'T'
	askKill      = 'K'
)

// reply is what a keeper says of a command: that it has started or why not, later how it ended.
type reply struct {
	Error string
	Errno int
	Exit  exit
}

// startError is why a command did not start, told by the keeper.
type startError struct {
	text  string
	errno syscall.Errno
}

func (e *startError) Error() string { return e.text }

// Unwrap gives the number of the error.
func (e *startError) Unwrap() error { return e.errno }

// startPatience is how long a keeper may take to start a command. One that was stopped from outside never would.
const startPatience = 15 * time.Second

func newLauncher() launcher { return &kept{patience: startPatience} }

// kept starts commands through a keeper, which it starts with the first of them, and again if it has died.
type kept struct {
	patience time.Duration

	mu     sync.Mutex
	keeper *net.UnixConn // nil: none runs
	cmd    *exec.Cmd
}

func (k *kept) start(s *spec, files [3]*os.File) (process, error) {
	own, theirs, err := connection(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	keeper, err := k.send(theirs, files)
	if errors.Is(err, errNoProc) {
		_, _ = own.Close(), theirs.Close()
		return direct{}.start(s, files)
	}
	_ = theirs.Close()                              // the keeper has its own
	_ = own.SetDeadline(time.Now().Add(k.patience)) // sockets have deadlines
	if err == nil {
		if err = gob.NewEncoder(own).Encode(s); err != nil {
			k.look(keeper)
		}
	}
	p := &keptProcess{k, keeper, own, gob.NewDecoder(own)}
	var r reply
	if err == nil {
		r, err = p.read()
	}
	if err == nil && r.Error != "" {
		err = &startError{r.Error, syscall.Errno(r.Errno)}
	}
	if err != nil {
		_ = own.Close()
		return nil, err
	}
	_ = own.SetDeadline(time.Time{})
	return p, nil
}

// send hands a command's files to the keeper, to a new one if there is none any more.
func (k *kept) send(conn *os.File, files [3]*os.File) (*net.UnixConn, error) {
	rights := unix.UnixRights(int(conn.Fd()), int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd()))
	k.mu.Lock()
	defer k.mu.Unlock()
	for try := 0; ; try++ {
		if k.keeper == nil {
			if err := k.launch(); err != nil {
				return nil, err
			}
		}
		_ = k.keeper.SetWriteDeadline(time.Now().Add(k.patience))
		_, _, err := k.keeper.WriteMsgUnix([]byte{0}, rights, nil)
		if err == nil {
			return k.keeper, nil
		}
		k.bury()
		if try > 0 {
			return nil, err
		}
	}
}

func (k *kept) launch() error {
	own, theirs, err := connection(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer theirs.Close()
	// Of what a keeper leaves behind that is killed, this process becomes the parent.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		_ = own.Close()
		return err
	}
	cmd := exec.Command("/proc/self/exe", KeepCommand)
	cmd.Args[0] = os.Args[0]
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = own.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return errNoProc
		}
		return err
	}
	k.keeper, k.cmd = own, cmd
	return nil
}

// look clears up after a keeper that does not answer any more, before a task of its runs again.
func (k *kept) look(keeper *net.UnixConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keeper == keeper {
		k.bury()
	}
}

// bury clears up after a keeper that has ended.
func (k *kept) bury() {
	_ = k.keeper.Close()
	_ = k.cmd.Process.Kill() // it has ended, or does not do what it is there for
	_ = k.cmd.Wait()
	killBelow(os.Getpid())
	k.keeper, k.cmd = nil, nil
}

// connection returns a pair of connected sockets, the second to be given away.
func connection(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "connection")
	own := os.NewFile(uintptr(fds[0]), "connection")
	defer own.Close()
	conn, err := net.FileConn(own)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// keptProcess is a command that a keeper runs.
type keptProcess struct {
	k       *kept
	keeper  *net.UnixConn
	conn    *net.UnixConn
	replies *gob.Decoder
}

func (p *keptProcess) terminate() { _, _ = p.conn.Write([]byte{askTerminate}) } // fails if it has ended
func (p *keptProcess) kill()      { _, _ = p.conn.Write([]byte{askKill}) }

func (p *keptProcess) wait() (exit, error) {
	defer p.conn.Close()
	r, err := p.read()
	return r.Exit, err
}

func (p *keptProcess) read() (reply, error) {
	var r reply
	if err := p.replies.Decode(&r); err != nil {
		p.k.look(p.keeper)
		return r, fmt.Errorf("%w (%v)", errKeeper, err)
	}
	return r, nil
}
