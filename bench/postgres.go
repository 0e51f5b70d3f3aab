package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waggleq/waggle/internal/freeport"
)

// postgres is a PostgreSQL server with the settings that initdb wrote, except where it listens.
type postgres struct {
	port    int
	version string
	cmd     *exec.Cmd
	done    chan struct{}
	ended   error // how; read only after done
}

// postgresUser is the database's superuser, who needs no password.
const postgresUser = "bench"

// startPostgres makes a database cluster in dir, which must not exist, and starts a server on it.
func startPostgres(ctx context.Context, dir string) (*postgres, error) {
	bin, err := postgresDir()
	if err != nil {
		return nil, err
	}
	as, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", data, "--username", postgresUser, "--auth", "trust")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freeport.Take()
	if err != nil {
		return nil, err
	}
	p := &postgres{port: port}
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1",
		"-c", "port="+strconv.Itoa(port), "-c", "unix_socket_directories="+dir)
	p.cmd.Dir, p.cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	var log bytes.Buffer
	p.cmd.Stderr = &log
	if p.done, err = startTied(p.cmd, func() {}, func(err error) { p.ended = err }); err != nil {
		return nil, err
	}
	if err := p.ready(ctx); err != nil {
		err = errors.Join(err, p.stop())
		return nil, fmt.Errorf("postgres: %w\n%s", err, log.String())
	}
	return p, nil
}

// postgresDir returns the directory of the server programs: where pg_config says, or the newest one where Debian puts
// them.
func postgresDir() (string, error) {
	var dirs []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // 0 for what is no version
		return n
	}
	slices.SortFunc(debian, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(dirs, debian...) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("PostgreSQL's server programs were not found: install them, on Debian and Ubuntu with: apt-get install postgresql")
}

// postgresAccount returns whom to run the server as: nil for ourselves or, as PostgreSQL refuses to run as root, the
// user postgres or nobody.
func postgresAccount() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func (p *postgres) url(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", postgresUser, p.port, database)
}

// ready waits until the server answers and notes its version.
func (p *postgres) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := p.query(ctx, "postgres", "SHOW server_version", &p.version)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("ended: %w", p.ended)
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// query runs one statement in a connection of its own and reads its one value into result, if that is not nil.
func (p *postgres) query(ctx context.Context, database, sql string, result any) error {
	conn, err := pgx.Connect(ctx, p.url(database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if result == nil {
		_, err = conn.Exec(ctx, sql)
		return err
	}
	return conn.QueryRow(ctx, sql).Scan(result)
}

// stop shuts the server down without waiting for sessions (fast shutdown).
func (p *postgres) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	<-p.done
	return p.ended
}

// createDatabase returns a new database, which a name identifies.
func (p *postgres) createDatabase(ctx context.Context, name string) (backend, error) {
	if err := p.query(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize(), nil); err != nil {
		return nil, err
	}
	return &postgresBackend{p, name}, nil
}

type postgresBackend struct {
	server *postgres
	name   string
}

func (b *postgresBackend) URL() string { return b.server.url(b.name) }

func (b *postgresBackend) Size(ctx context.Context) (n int64, err error) {
	err = b.server.query(ctx, b.name, "SELECT pg_database_size(current_database())", &n)
	return n, err
}

func (b *postgresBackend) CPU() (time.Duration, error) { return treeCPU(b.server.cmd.Process.Pid) }

// Close drops the database, so that nothing is left to vacuum during the next measurement, and writes out what is
// dirty, so that its writes are not the next one's.
func (b *postgresBackend) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := b.server.query(ctx, "postgres", "DROP DATABASE "+pgx.Identifier{b.name}.Sanitize()+" WITH (FORCE)", nil)
	return errors.Join(err, b.server.query(ctx, "postgres", "CHECKPOINT", nil))
}
