package redisstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A program's own client has the password of the URL, and its connections end with it.
func TestConnect(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, &redisserver.Options{Password: "sesame"})
	client, err := redisstore.Connect(server.URL()+"?replicas=1&ns=other", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Do(t.Context(), client.B().Set().Key("mine").Value("1").Build()).Error(); err != nil {
		t.Error(err)
	}
	client.Close()
	if err := client.Do(t.Context(), client.B().Get().Key("mine").Build()).Error(); !errors.Is(err, rueidis.ErrClosing) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := redisstore.Connect("redis://127.0.0.1:1", nil); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := redisstore.Connect("http://127.0.0.1", nil); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("another scheme: %v", err)
	}
}

// Behind Sentinel it goes to the new master, and never to the old one that has come back.
func TestConnectFollowsSentinel(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t, nil)
	client, err := redisstore.Connect(set.URL(), &redisstore.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	old, err := set.KillMaster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	master, err := set.WaitFailover(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Restart(t.Context()); err != nil { // empty: it keeps nothing
		t.Fatal(err)
	}
	for t.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err = client.Do(ctx, client.B().Set().Key("mine").Value("1").Build()).Error()
		cancel()
		if err == nil {
			break
		}
	}
	if got, err := master.Do(t.Context(), "GET", "mine"); err != nil || got.Text != "1" {
		t.Errorf("the new master has %q, %v", got.Text, err)
	}
}
