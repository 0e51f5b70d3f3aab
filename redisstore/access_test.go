package redisstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestAccessRevoked takes a user's rights away while a store is in use, then the user itself, and gives both back.
// Calls are refused with what is wrong and change nothing, and go on by themselves afterwards.
func TestAccessRevoked(t *testing.T) {
	t.Parallel()
	const rights = "bee on >nectar ~waggle:* +@all"
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, Password: "hunter2", Users: []string{rights}})
		url := strings.Replace(server.URL(), "redis://", "redis://bee:nectar@", 1)
		if _, rest, found := strings.Cut(server.URL(), "@"); found {
			url = "redis://bee:nectar@" + rest
		}
		s := open(t, url, nil)
		add(t, s, 3, driver.EnqueueOptions{})
		acl := func(args ...string) {
			t.Helper()
			v, err := server.Do(t.Context(), append([]string{"ACL"}, args...)...)
			if err := errors.Join(err, v.Err()); err != nil {
				t.Fatal(err)
			}
		}
		task := &driver.Task{ID: "again", Type: "t"}
		enqueue := func() (err error) {
			for range 20 { // each connection that the server has cut fails one call, whose outcome is unknown
				_, err = s.Enqueue(t.Context(), []*driver.Task{task}, driver.EnqueueOptions{})
				if !errors.Is(err, driver.ErrUnavailable) {
					break
				}
			}
			return err
		}
		for what, c := range map[string]struct {
			revoke []string
			words  string
		}{
			"the right to run scripts": {[]string{"SETUSER", "bee", "-eval", "-evalsha"}, "access rules (ACL)"},
			"the keys":                 {[]string{"SETUSER", "bee", "resetkeys"}, "access rules (ACL)"},
			"the user":                 {[]string{"DELUSER", "bee"}, "credentials"},
			"the password":             {[]string{"SETUSER", "bee", "resetpass", ">honey"}, ""},
		} {
			acl(c.revoke...)
			if what == "the password" { // connections that are open stay
				v, err := server.Do(t.Context(), "CLIENT", "KILL", "USER", "bee")
				if err := errors.Join(err, v.Err()); err != nil {
					t.Fatal(err)
				}
				c.words = "credentials"
			}
			if err := enqueue(); !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "nectar") {
				t.Errorf("without %s: got %v, want ErrInvalid with %q", what, err, c.words)
			}
			acl(append([]string{"SETUSER", "bee", "reset"}, strings.Fields(rights)[1:]...)...)
			if err := enqueue(); err != nil {
				t.Errorf("with %s given back: %v", what, err)
			}
		}
		s = open(t, url, nil)
		if r, err := s.Queues(t.Context()); err != nil || len(r) != 1 || r[0].Counts[driver.Available] != 4 {
			t.Errorf("got %+v, %v, want 4 tasks", r, err)
		}
		drivertest.Audit(t, s)
	})
}

// TestDatabaseOutOfRange opens a database that the server does not have: nothing to try again.
func TestDatabaseOutOfRange(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		url := strings.Replace(redistest.Start(t, &redisserver.Options{Flavour: f}).URL(), "/0", "/1000", 1)
		s, err := redisstore.Open(t.Context(), url, nil)
		if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), "database 1000") {
			t.Errorf("got %v, %v; want ErrInvalid and the number", s, err)
		}
	})
}
