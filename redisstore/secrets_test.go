package redisstore_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// secretDir is a directory of files that a store's URL names.
type secretDir struct {
	*testing.T
	dir string
}

func (d secretDir) path(name string) string { return filepath.Join(d.dir, name) }

func (d secretDir) write(name, content string) {
	d.Helper()
	if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
		d.Fatal(err)
	}
}

// take copies a server's certificates.
func (d secretDir) take(server *redisserver.Server) {
	d.Helper()
	for name, from := range map[string]string{"ca": server.CAFile(), "cert": server.CertFile(), "key": server.KeyFile()} {
		b, err := os.ReadFile(from)
		if err != nil {
			d.Fatal(err)
		}
		d.write(name, string(b))
	}
}

// disconnect cuts all connections of clients.
func disconnect(t *testing.T, server *redisserver.Server) {
	t.Helper()
	v, err := server.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	if err := errors.Join(err, v.Err()); err != nil {
		t.Fatal(err)
	}
}

// TestCertificatesAreReplaced gives a server a certificate of another authority, twice, while a store is in use. New connections are refused until the files that the store's URL names are the new ones, also while
// these are half written; then the store goes on by itself.
func TestCertificatesAreReplaced(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, TLSClientCert: true})
		files := secretDir{t, t.TempDir()}
		files.take(server)
		query := url.Values{"ca_file": {files.path("ca")}, "cert_file": {files.path("cert")}, "key_file": {files.path("key")}}
		s := open(t, server.URL()+"?"+query.Encode(), &redisstore.Options{Timeout: 2 * time.Second})
		register(t, s, "w")
		add(t, s, 4, driver.EnqueueOptions{})
		claims := fetch(t, s, "w", 2)
		task := []*driver.Task{{ID: "again", Type: "t"}}
		refused := func(when string) {
			t.Helper()
			disconnect(t, server)
			for range 3 { // a connection that was cut gives one error of its own
				_, err := s.Enqueue(t.Context(), task, driver.EnqueueOptions{})
				if !errors.Is(err, driver.ErrUnavailable) {
					t.Errorf("%s: got %v, want ErrUnavailable", when, err)
				}
			}
		}
		for _, what := range []string{"another authority", "another authority again"} {
			if err := server.RenewCertificate(t.Context(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			refused(what)
			files.write("ca", "half a file")
			files.write("cert", "")
			refused(what + ", files half written")
			files.take(server)
			eventually(t, what+", files replaced", func() error {
				_, err := s.Enqueue(t.Context(), task, driver.EnqueueOptions{})
				return err
			})
		}
		eventually(t, "Settle", func() error {
			errs, err := driver.SettleErrors(s.Settle(t.Context(), "w", completions(claims)))
			return errors.Join(append(errs, err)...)
		})
		drivertest.Audit(t, s)
	})
}

// TestACertificateThatRunsOut has a server go on with a certificate that is not valid any more: new connections are
// refused with what is wrong, and made again once it is renewed.
func TestACertificateThatRunsOut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, &redisserver.Options{TLS: true})
	s := open(t, server.URL()+"?"+url.Values{"ca_file": {server.CAFile()}}.Encode(), &redisstore.Options{Timeout: 2 * time.Second})
	add(t, s, 1, driver.EnqueueOptions{})
	if err := server.RenewCertificate(t.Context(), time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	disconnect(t, server)
	eventually(t, "the error that the certificate has run out", func() error {
		_, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
		if !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		if err == nil || !strings.Contains(err.Error(), "expired") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	if err := server.RenewCertificate(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Enqueue with the new certificate", func() error {
		_, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
		return err
	})
}

// TestThePasswordFileIsReadAgain changes the password that a server wants while a store is in use. New connections are
// refused until the file has the new one; no error shows either.
func TestThePasswordFileIsReadAgain(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, Users: []string{"bee on >nectar-of-may ~waggle:* +@all"}})
		files := secretDir{t, t.TempDir()}
		files.write("password", "nectar-of-may\n")
		s := open(t, "redis://bee@"+server.Addr()+"?"+url.Values{"password_file": {files.path("password")}}.Encode(), nil)
		add(t, s, 1, driver.EnqueueOptions{})
		v, err := server.Do(t.Context(), "ACL", "SETUSER", "bee", "resetpass", ">honey-of-june")
		if err := errors.Join(err, v.Err()); err != nil {
			t.Fatal(err)
		}
		task := []*driver.Task{{ID: "again", Type: "t"}}
		enqueue := func() error {
			_, err := s.Enqueue(t.Context(), task, driver.EnqueueOptions{})
			if err != nil && (strings.Contains(err.Error(), "nectar") || strings.Contains(err.Error(), "honey")) {
				t.Errorf("the error shows a password: %v", err)
			}
			return err
		}
		disconnect(t, server)
		eventually(t, "the error that the password is wrong", func() error {
			if err := enqueue(); !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), "credentials") {
				return fmt.Errorf("it says %w", err)
			}
			return nil
		})
		files.write("password", "honey-of-june\n")
		eventually(t, "Enqueue with the new password", enqueue)
	})
}

// TestPasswordFileBehindSentinel has the servers want a password, and the sentinels none.
func TestPasswordFileBehindSentinel(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t, &redisserver.SentinelOptions{Node: redisserver.Options{Password: "honey"}})
	files := secretDir{t, t.TempDir()}
	files.write("password", "honey")
	u := strings.Replace(set.URL(), ":honey@", "", 1)
	s := open(t, u+"?"+url.Values{"password_file": {files.path("password")}}.Encode(), nil)
	add(t, s, 1, driver.EnqueueOptions{})
}
