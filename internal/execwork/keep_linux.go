package execwork

import (
	"bufio"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keep is the whole of a keeper: it runs the commands that its worker asks for, until the worker is gone, and then kills
// all that is left of them. It returns the exit code of the process.
func Keep() int {
	// Its end is its worker's end, so it takes no other signal for one. They are caught, not ignored: what it starts has
	// the defaults.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	// A name that does not begin like the worker's, so that who kills all workers by name leaves it to clear up.
	_ = os.WriteFile("/proc/self/comm", []byte("keeper"), 0) // without /proc it keeps the name it has
	worker, err := inherited()
	if err != nil {
		return 2
	}
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		return 1
	}
	k := &keeper{leaders: make(map[int]bool)}
	go k.reap()
	for {
		files, err := receive(worker)
		if err != nil {
			break
		}
		if len(files) == 4 {
			go k.serve(files)
		} else {
			closeFiles(files)
		}
	}
	k.mu.Lock() // for good: nothing is started any more
	killBelow(os.Getpid())
	return 0
}

// inherited returns the connection that a keeper is started with.
func inherited() (*net.UnixConn, error) {
	file := os.NewFile(3, "worker")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a keeper's connection")
	}
	return u, nil
}

// receive returns the files of the next message.
func receive(conn *net.UnixConn) ([]*os.File, error) {
	body, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4*4))
	n, size, _, _, err := conn.ReadMsgUnix(body, rights)
	if err != nil || n == 0 {
		return nil, errors.Join(err, io.EOF)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "file"))
		}
	}
	return files, nil
}

// keeper is the state of the process that keeps a worker's commands.
type keeper struct {
	mu      sync.RWMutex // held, for reading, while a command is started, so that no leader is taken for an orphan
	lmu     sync.Mutex
	leaders map[int]bool // commands that somebody here waits for
}

// serve runs one command.
func (k *keeper) serve(files []*os.File) {
	conn, err := net.FileConn(files[0])
	_ = files[0].Close()
	if err != nil {
		closeFiles(files[1:])
		return
	}
	defer conn.Close()
	// The kernel counts as parent the thread that forked: stay on it as long as the command runs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	in := bufio.NewReader(conn)
	var s spec
	err = gob.NewDecoder(in).Decode(&s)
	var c *child
	if err == nil {
		c, err = k.start(&s, [3]*os.File(files[1:]))
	}
	closeFiles(files[1:])
	out := gob.NewEncoder(conn)
	if err != nil {
		r := reply{Error: err.Error()}
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			r.Errno = int(errno)
		}
		_ = out.Encode(r) // if the worker is gone, so will be this process
		return
	}
	_ = out.Encode(reply{})
	go c.obey(in)
	end, err := c.wait()
	k.forget(c.pid)
	if err == nil {
		_ = out.Encode(reply{Exit: end})
	}
}

func (k *keeper) start(s *spec, files [3]*os.File) (*child, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	p, err := direct{}.start(s, files)
	if err != nil {
		return nil, err
	}
	c := p.(*child)
	k.lmu.Lock()
	k.leaders[c.pid] = true
	k.lmu.Unlock()
	return c, nil
}

func (k *keeper) forget(pid int) {
	k.lmu.Lock()
	delete(k.leaders, pid)
	k.lmu.Unlock()
}

// obey does what the worker asks for while the command runs.
func (c *child) obey(in *bufio.Reader) {
	for {
		switch ask, err := in.ReadByte(); {
		case err != nil:
			return // the command has ended, or the worker: then all will
		case ask == askTerminate:
			c.terminate()
		case ask == askKill:
			// What left the group is killed as well, as far as it is still below the command. The group is first, as a whole: a
			// shell must not see what it waits for die, and end in good order.
			strays := below(c.pid)
			c.kill()
			for _, pid := range strays {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
	}
}

// reapPause is how long an orphan that has ended may wait for it to be noted: looking for them costs.
const reapPause = time.Second

// reap takes in orphans that have ended.
func (k *keeper) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		k.mu.Lock()
		for _, pid := range childrenOf(os.Getpid()) {
			k.lmu.Lock()
			leader := k.leaders[pid]
			k.lmu.Unlock()
			if !leader {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may not have ended
			}
		}
		k.mu.Unlock()
		time.Sleep(reapPause)
	}
}

// killBelow kills all descendants of this process, until there are none. Each orphan becomes its child and is waited for.
func killBelow(self int) {
	const patience = time.Minute // a process that hangs in the kernel may never die
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		pids := below(self)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		if len(pids) == 0 {
			return
		}
	}
}
