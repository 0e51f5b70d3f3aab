package redisstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestServerTakesNoMoreClients opens a store on a server that has as many clients as it may.
func TestServerTakesNoMoreClients(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f})
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true, ForceSingleClient: true, PipelineMultiplex: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if err := c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxclients", "1").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err = redisstore.Open(t.Context(), server.URL(), nil)
			if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "max number of clients reached") {
				t.Errorf("got %v, want the server's own words", err)
			}
		}
	})
}

// TestUnixSocket opens a store by its server's socket.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, UnixSocket: true})
		s := open(t, string(f)+"+unix://"+server.UnixSocket()+"?db=3", nil)
		if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: "a", Type: "t"}}, driver.EnqueueOptions{}); err != nil {
			t.Fatal(err)
		}
		other := open(t, strings.TrimSuffix(server.URL(), "/0")+"/3", nil)
		if got, err := other.Get(t.Context(), []string{"a"}); err != nil || got[0] == nil {
			t.Errorf("the task is not in database 3: %v, %v", got, err)
		}
	})
}
