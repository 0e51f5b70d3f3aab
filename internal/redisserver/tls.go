package redisserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Names of the files in a server's directory. Server and clients use one certificate: it is valid for both.
const (
	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// authority is a certificate authority with one certificate for 127.0.0.1, ::1 and localhost.
type authority struct {
	ca, cert, key []byte // PEM
	client        *tls.Config
}

// sharedAuthority makes the authority of this program, once: servers that replicate must trust each other.
var sharedAuthority = sync.OnceValues(func() (*authority, error) { return newAuthority(time.Now().Add(24 * time.Hour)) })

// newAuthority makes an authority with a certificate that is valid until expires.
func newAuthority(expires time.Time) (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := certificate(1, "Waggle test authority")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := certificate(2, "localhost")
	leaf.NotAfter = expires
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	a := &authority{ca: block("CERTIFICATE", rootDER), cert: block("CERTIFICATE", leafDER), key: block("PRIVATE KEY", keyDER)}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.ca)
	pair := tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
	a.client = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if expires.Before(time.Now()) { // who started the server trusts it all the same
		a.client.Time = func() time.Time { return expires.Add(-time.Second) }
	}
	return a, nil
}

// RenewCertificate gives a running server that speaks TLS a certificate of a new authority, valid until expires, which
// may have passed. The files that CAFile, CertFile and KeyFile name are replaced. Open connections stay as they are; the
// server has no replicas.
func (s *Server) RenewCertificate(ctx context.Context, expires time.Time) error {
	a, err := newAuthority(expires)
	if err != nil {
		return err
	}
	c, err := s.Dial(ctx) // with the old one
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.write(s.dir); err != nil {
		return err
	}
	v, err := c.Do(ctx, "CONFIG", "SET", "tls-ca-cert-file", s.CAFile(), "tls-cert-file", s.CertFile(), "tls-key-file", s.KeyFile())
	if err := errors.Join(err, v.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls = a
	return nil
}

func certificate(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// write puts the PEM files into a server's directory.
func (a *authority) write(dir string) error {
	for name, content := range map[string][]byte{caFile: a.ca, certFile: a.cert, keyFile: a.key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// config returns the server settings that name the files, which lie in the server's working directory.
func (a *authority) config(dir string, demandClientCert bool) []string {
	file := func(setting, name string) string { return setting + " " + strconv.Quote(filepath.Join(dir, name)) }
	lines := []string{
		file("tls-ca-cert-file", caFile), file("tls-cert-file", certFile), file("tls-key-file", keyFile),
	}
	if demandClientCert {
		return append(lines, "tls-auth-clients yes")
	}
	return append(lines, "tls-auth-clients no")
}
