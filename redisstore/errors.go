package redisstore

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// What the scripts answer when they refuse to run; see include/head.lua.
var (
	errStale  = errors.New("what this program knows of the store is out of date")
	errRemote = errors.New("the owner of a unique key is in another shard")
	errRetry  = errors.New("the owner of a unique key has changed meanwhile")
)

// scriptErrors maps the first word of a script's refusal.
var scriptErrors = map[string]error{
	"WAGGLESTALE":  errStale,
	"WAGGLERETRY":  errRetry,
	"WAGGLEREMOTE": errRemote,
	"WAGGLELEASE":  driver.Errorf(driver.ErrLeaseLost, "the worker is not registered, or its lease has run out"),
	"WAGGLELOST": driver.Errorf(driver.ErrCorrupt, "the store is not the one that was opened: it came back empty or was replaced, or a newer version of this program has changed its format; "+
		"check whether the server lost its data (persistence off, flushed, a failover to an empty replica) and open the store again"),
}

// serverErrors maps the first word of an error that the server gave, which then has executed nothing.
var serverErrors = map[string]struct {
	err  error
	text string
}{
	"OOM":         {driver.ErrStoreFull, "the server has reached maxmemory: raise it, or let workers drain the queues"},
	"MISCONF":     {driver.ErrStoreFull, "the server refuses writes because it can't save to disk: free space on its disk"},
	"READONLY":    {driver.ErrUnavailable, "the server is a read-only replica: connect to the master"},
	"LOADING":     {driver.ErrUnavailable, "the server is loading its data"},
	"BUSY":        {driver.ErrUnavailable, "the server is busy with a script that runs too long"},
	"CLUSTERDOWN": {driver.ErrUnavailable, "the cluster is down: too many masters are missing"},
	"MOVED":       {driver.ErrUnavailable, "a slot of the cluster has moved: try again"},
	"ASK":         {driver.ErrUnavailable, "a slot of the cluster is being moved: try again"},
	"TRYAGAIN":    {driver.ErrUnavailable, "a slot of the cluster is being moved"},
	"MASTERDOWN":  {driver.ErrUnavailable, "the replica has lost its master"},
	"NOREPLICAS":  {driver.ErrUnavailable, "the server has too few replicas to accept writes (min-replicas-to-write)"},
	"DENIED":      {driver.ErrUnavailable, "the server is in protected mode: give it a password, or have it listen on addresses that are safe"},
	"NOAUTH":      {driver.ErrInvalid, "the server wants credentials"},
	"WRONGPASS":   {driver.ErrInvalid, "the server refuses the credentials"},
	"NOPERM":      {driver.ErrInvalid, "the server's access rules (ACL) do not permit this user what the store needs"},
	"WRONGTYPE":   {driver.ErrCorrupt, "a key of the store holds something else: the namespace is used by another program"},
}

// asError turns an error of the client library into one of the contract.
func (s *Store) asError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, rueidis.ErrClosing) && s.closed():
		return driver.ErrClosed
	case errors.Is(err, errNotSent):
		return errNotSent
	}
	var text string
	if r, ok := errors.AsType[*refusal](err); ok {
		text = r.words
	} else if re, ok := rueidis.IsRedisErr(err); ok {
		text = re.Error()
	} else {
		return driver.Errorf(driver.ErrUnavailable, "%s can't be reached: %s%s", s.where, s.redact(err.Error()), explain(err))
	}
	word, _, _ := strings.Cut(text, " ")
	if e := scriptErrors[word]; e != nil {
		return e
	}
	if e, ok := serverErrors[word]; ok {
		return driver.Errorf(e.err, "%s: %s (%s)", s.where, e.text, s.redact(text))
	}
	if strings.Contains(text, "OOM command not allowed") {
		return driver.Errorf(driver.ErrStoreFull, "%s: %s", s.where, serverErrors["OOM"].text)
	}
	if strings.HasPrefix(text, tooManyClients) {
		return driver.Errorf(driver.ErrUnavailable, "%s takes no more clients: raise its setting \"maxclients\", or run fewer programs (%s)", s.where, text)
	}
	if strings.Contains(text, "DB index is out of range") {
		return driver.Errorf(driver.ErrInvalid, "%s has no database %d: its setting \"databases\" says how many there are", s.where, s.target.database)
	}
	return driver.Errorf(driver.ErrUnavailable, "%s: %s", s.where, s.redact(text))
}

// explain says what an error of a connection may mean that does not say it itself.
func explain(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return " (it hung up: is it a Redis or Valkey server, and not in protected mode?)"
	case strings.Contains(err.Error(), "unknown message type"):
		return " (is it a Redis or Valkey server?)"
	}
	return ""
}

func (s *Store) redact(text string) string {
	for _, secret := range append(s.target.files.known(), s.target.password) {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	return text
}
