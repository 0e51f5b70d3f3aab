package redisserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle/internal/freeport"
	"github.com/waggleq/waggle/internal/resp"
)

// role is what a process does; it decides the configuration file.
type role int

const (
	standalone role = iota
	clusterNode
	sentinel
)

// ErrNotRunning is returned by calls that need a running server.
var ErrNotRunning = errors.New("redisserver: the server is not running")

// stopGrace is how long a graceful stop may take before the server is killed.
const stopGrace = 10 * time.Second

// Server is one server process and its directory. All methods may be called concurrently. Close must be called once the
// server is no longer needed.
type Server struct {
	o    *Options
	bin  Binary
	role role
	dir  string
	tls  *authority

	port, busPort int
	nodeTimeout   time.Duration // clusterNode
	watch         *watch        // sentinel

	mu   sync.Mutex
	proc *process // nil before the first start
	held bool     // paused
}

// Start starts a server on a free loopback port and returns when it answers as itself (a reply of another server on that
// port does not count) and, as a replica, is in sync. The context bounds the start only. A nil o is the zero value.
func Start(ctx context.Context, o *Options) (*Server, error) {
	s, err := prepare(ctx, o, standalone)
	if err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	if s.o.ReplicaOf != nil {
		inSync := func(ctx context.Context) error { return s.inSync(ctx, s.o.ReplicaOf) }
		if err := await(ctx, "replica in sync", inSync); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// prepare makes the directory with everything in it that does not depend on the port.
func prepare(ctx context.Context, o *Options, r role) (*Server, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	bin, err := Find(ctx, o.Flavour)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "waggle-"+string(o.Flavour)+"-")
	if err != nil {
		return nil, fmt.Errorf("redisserver: %w", err)
	}
	s := &Server{o: o, bin: bin, role: r, dir: dir}
	if o.TLS {
		if s.tls, err = sharedAuthority(); err == nil {
			err = s.tls.write(dir)
		}
	}
	if err == nil && len(o.Users) > 0 {
		err = os.WriteFile(s.path("users.acl"), []byte(s.aclFile()), 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("redisserver: %w", err), os.RemoveAll(dir))
	}
	return s, nil
}

// launch starts the process for the first time. When a port turns out to be in use it tries others. On failure nothing
// is left behind.
func (s *Server) launch(ctx context.Context) error {
	for tries := 1; ; tries++ {
		err := s.takePorts()
		if err == nil {
			err = os.WriteFile(s.path("server.conf"), []byte(s.config()), 0o600)
		}
		if err == nil {
			err = s.run(ctx)
		}
		if err == nil {
			return nil
		}
		if tries < 20 && ctx.Err() == nil && strings.Contains(s.Log(), "Address already in use") {
			freeport.Release(s.port, s.busPort)
			os.Remove(s.logPath())
			continue
		}
		err = fmt.Errorf("redisserver: start %s %s: %w\n%s", s.bin.Path, s.bin.Version, err, s.Log())
		return errors.Join(err, s.Close())
	}
}

func (s *Server) takePorts() (err error) {
	if s.port, err = freeport.Take(); err == nil && s.role == clusterNode {
		s.busPort, err = freeport.Take()
	}
	return err
}

// run starts the process on the chosen port and waits until it serves.
func (s *Server) run(ctx context.Context) error {
	args := []string{s.path("server.conf")}
	if s.role == sentinel {
		args = append(args, "--sentinel")
	}
	proc, err := spawn(s.bin.Path, s.dir, s.logPath(), args...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc, s.held = proc, false
	s.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-proc.done:
			cancel(fmt.Errorf("the server ended: %w", cmp.Or(proc.err, errors.New("exit status 0"))))
		case <-ctx.Done():
		}
	}()
	if err := await(ctx, "server ready", s.ready); err != nil {
		proc.kill()
		return err
	}
	return nil
}

// ready reports whether this very process answers and has loaded its data.
func (s *Server) ready(ctx context.Context) error {
	info, err := s.Info(ctx, "server")
	if err != nil {
		return err
	}
	if got, want := info["process_id"], strconv.Itoa(s.PID()); got != want {
		return fmt.Errorf("port %d is served by process %s, not %s", s.port, got, want)
	}
	_, err = s.Do(ctx, "PING")
	return err
}

// inSync reports whether s holds a copy of master and is sent every write from now on. That its link is up and that the
// master holds it for online are true a little before the master streams to it: a master that fails in between leaves a
// replica that has nothing of what was written meanwhile. So a write of no consequence has to arrive.
func (s *Server) inSync(ctx context.Context, master *Server) error {
	info, err := s.Info(ctx, "replication")
	if err != nil {
		return err
	}
	if info["role"] != "slave" || info["master_link_status"] != "up" {
		return fmt.Errorf("%s: role %s, link to the master %s", s.Addr(), info["role"], info["master_link_status"])
	}
	c, err := master.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Do(ctx, "FUNCTION", "FLUSH"); err != nil { // nobody has functions, and it needs no key, so no slot
		return err
	}
	sent, err := master.Info(ctx, "replication")
	if err != nil {
		return err
	}
	if _, err := c.Do(ctx, "WAIT", sent["connected_slaves"], "500"); err != nil { // has them acknowledge at once
		return err
	}
	info, err = master.Info(ctx, "replication")
	if err != nil {
		return err
	}
	for name, value := range info { // slave0:ip=127.0.0.1,port=7001,state=online,offset=42,lag=0
		if strings.HasPrefix(name, "slave") && strings.Contains(value, fmt.Sprintf("port=%d,state=online", s.port)) {
			_, rest, _ := strings.Cut(value, "offset=")
			has, _, _ := strings.Cut(rest, ",")
			if number(has) >= max(number(sent["master_repl_offset"]), 1) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not stream to its replica %s yet", master.Addr(), s.Addr())
}

// number is a count of a server's report, -1 for what is none.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Flavour returns the product.
func (s *Server) Flavour() Flavour { return s.o.Flavour }

// Version returns the program's version, such as "7.0.15".
func (s *Server) Version() string { return s.bin.Version }

// Addr returns the server's address, "127.0.0.1:port". It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// UnixSocket returns the path of the server's Unix socket, which exists if Options.UnixSocket was set.
func (s *Server) UnixSocket() string { return s.path("server.sock") }

// Dir returns the server's directory. Close removes it.
func (s *Server) Dir() string { return s.dir }

// URL returns the server's address as a URL with the default user's password: redis:// or rediss://, for Valkey
// valkey:// or valkeys://. TLS clients also need TLSConfig or CAFile.
func (s *Server) URL() string {
	u := url.URL{Scheme: string(s.o.Flavour), Host: s.Addr(), Path: "/0"}
	if s.o.TLS {
		u.Scheme += "s"
		if s.o.Flavour == Redis {
			u.Scheme = "rediss"
		}
	}
	if s.o.Password != "" {
		u.User = url.UserPassword("", s.o.Password)
	}
	return u.String()
}

// TLSConfig returns a configuration that trusts the server and holds a client certificate it accepts, or nil if the
// server does not speak TLS. The caller may change it.
func (s *Server) TLSConfig() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls == nil {
		return nil
	}
	return s.tls.client.Clone()
}

// CAFile returns the path of the PEM file of the authority that signed the server's certificate. It exists, as those of
// CertFile and KeyFile do, if the server speaks TLS.
func (s *Server) CAFile() string { return s.path(caFile) }

// CertFile returns the path of a client certificate. See CAFile.
func (s *Server) CertFile() string { return s.path(certFile) }

// KeyFile returns the path of the key of CertFile. See CAFile.
func (s *Server) KeyFile() string { return s.path(keyFile) }

// PID returns the id of the server's process, also of one that has ended, and 0 before the first start.
func (s *Server) PID() int {
	if p := s.process(); p != nil {
		return p.os.Pid
	}
	return 0
}

// Running reports whether the process exists. A paused server is running.
func (s *Server) Running() bool {
	p := s.process()
	return p != nil && !p.ended()
}

// Kill ends the server with SIGKILL and returns when it is gone. Killing a server that has ended does nothing.
func (s *Server) Kill() {
	if p := s.process(); p != nil {
		p.kill()
	}
}

// Pause stops the server with SIGSTOP: its connections stay open and nothing answers.
func (s *Server) Pause() error { return s.signal(pause, true) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.signal(resume, false) }

func (s *Server) signal(send func(*os.Process) error, held bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.ended() {
		return ErrNotRunning
	}
	if err := send(s.proc.os); err != nil {
		return fmt.Errorf("redisserver: %w", err)
	}
	s.held = held
	return nil
}

// responsive reports whether the server should answer: it runs and is not paused.
func (s *Server) responsive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && !s.proc.ended() && !s.held
}

// Stop shuts the server down in order: an append-only file is synced, replicas get a few seconds to catch up. A server
// that takes longer than ten seconds, or than ctx, is killed and an error returned. Directory and port stay for Restart.
func (s *Server) Stop(ctx context.Context) error {
	p := s.process()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := p.terminate(ctx); err != nil {
		return fmt.Errorf("redisserver: %s: %w", s.Addr(), err)
	}
	return nil
}

// Restart stops the server if it runs (use Kill before it for a crash), starts it again on the same port and directory,
// and returns when it serves. Without an append-only file it comes back empty.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("redisserver: restart on %s: %w\n%s", s.Addr(), err, s.Log())
	}
	return nil
}

// Close kills the server and removes its directory. It may be called more than once.
func (s *Server) Close() error {
	s.Kill()
	freeport.Release(s.port, s.busPort)
	return os.RemoveAll(s.dir)
}

// Log returns what the server has printed, at most the last 64 KiB, over all its restarts; nothing after Close.
func (s *Server) Log() string {
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return ""
	}
	return string(log[max(0, len(log)-64<<10):])
}

// Dial opens a connection to the server with all rights. The caller closes it.
func (s *Server) Dial(ctx context.Context) (*resp.Client, error) {
	user, password := s.control()
	if s.role == sentinel {
		user, password = "", ""
	}
	return resp.Dial(ctx, s.Addr(), &resp.DialOptions{TLS: s.TLSConfig(), Username: user, Password: password})
}

// Do sends one command with all rights on a connection of its own. An error reply is returned as a resp.Error.
func (s *Server) Do(ctx context.Context, args ...string) (resp.Value, error) {
	c, err := s.Dial(ctx)
	if err != nil {
		return resp.Value{}, err
	}
	defer c.Close()
	return c.Do(ctx, args...)
}

// Info returns the fields of a section of the server's INFO.
func (s *Server) Info(ctx context.Context, section string) (map[string]string, error) {
	v, err := s.Do(ctx, "INFO", section)
	if err != nil {
		return nil, err
	}
	return fields(v.Text), nil
}

// fields splits the lines "name:value" of an INFO reply.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) logPath() string { return s.path("server.log") }

func (s *Server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}
