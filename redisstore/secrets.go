package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// secretFiles are the files of passwords and certificates that a store's URL names. Each new connection reads them
// again, so that what is replaced under a running program is used from the next connection on. A file that can't be
// read then, because it is just being replaced, leaves what was read last.
type secretFiles struct {
	password, ca, cert, key string // paths; empty: none

	mu        sync.Mutex
	passwords []string // each that was read, the last is in force; none may ever be shown
	roots     *x509.CertPool
	pair      *tls.Certificate
}

// readPassword reads the password file, if there is one.
func (f *secretFiles) readPassword() error {
	if f.password == "" {
		return nil
	}
	b, err := os.ReadFile(f.password)
	if err != nil {
		return driver.Invalidf("the password file can't be read: %v", err)
	}
	word := strings.TrimRight(string(b), "\r\n")
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.passwords); n == 0 || word != "" && word != f.passwords[n-1] {
		f.passwords = append(f.passwords, word)
	}
	return nil
}

// readTLS reads the authority and the client certificate, as far as there are any.
func (f *secretFiles) readTLS() error {
	return errors.Join(f.readRoots(), f.readPair())
}

func (f *secretFiles) readRoots() error {
	if f.ca == "" {
		return nil
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return driver.Invalidf("the CA file can't be read: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return driver.Invalidf("the CA file %s holds no certificate", f.ca)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roots = roots
	return nil
}

func (f *secretFiles) readPair() error {
	if f.cert+f.key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return driver.Invalidf("the client certificate can't be loaded: %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pair = &pair
	return nil
}

// current returns the password in force; empty if there is none.
func (f *secretFiles) current() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.passwords) == 0 {
		return ""
	}
	return f.passwords[len(f.passwords)-1]
}

// known returns every password that was ever in force.
func (f *secretFiles) known() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.passwords)
}

// config returns base with what the files hold.
func (f *secretFiles) config(base *tls.Config) *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := base.Clone()
	if f.roots != nil {
		c.RootCAs = f.roots
	}
	if f.pair != nil {
		c.Certificates = []tls.Certificate{*f.pair}
	}
	return c
}

// freshTLS returns base with what the files hold now.
func (t *target) freshTLS(base *tls.Config) *tls.Config {
	_ = t.files.readTLS() // what was read last is still there
	return t.files.config(base)
}

// credentials are what a new connection to a server identifies itself with. Sentinels want none.
func (t *target) credentials(c rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	if _, ok := c.Address.(sentinelAddr); ok {
		return rueidis.AuthCredentials{}, nil
	}
	_ = t.files.readPassword() // what was read last is still there
	return rueidis.AuthCredentials{Username: t.username, Password: t.files.current()}, nil
}

// sentinelConn is a connection to a sentinel, which the client library opens with the same functions as the others.
type sentinelConn struct{ net.Conn }

func (c sentinelConn) RemoteAddr() net.Addr { return sentinelAddr{c.Conn.RemoteAddr()} }

// toWhom marks a connection that a dialer for sentinels has made.
func toWhom(d *net.Dialer, c net.Conn) net.Conn {
	if d.Resolver == toSentinel {
		return sentinelConn{c}
	}
	return c
}

type sentinelAddr struct{ net.Addr }
