package resp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// DialOptions say how to reach a server. The zero value is plain TCP without credentials.
type DialOptions struct {
	// Network is "tcp" or "unix"; empty means "tcp".
	Network string
	// TLS, if set, wraps the connection.
	TLS *tls.Config
	// Username and Password are sent with AUTH if Password is set; an empty Username means the default user.
	Username, Password string
}

// Client is one connection on which commands are sent one at a time. It is not safe for concurrent use. After an error
// that is not an Error of this package the connection is out of step and must be closed, except that a Receive whose
// context ended before any byte arrived may be repeated.
type Client struct {
	conn net.Conn
	r    *Reader
}

// Dial connects and, if o has a password, authenticates. The context bounds the whole of it. A nil o is the zero value.
func Dial(ctx context.Context, addr string, o *DialOptions) (*Client, error) {
	if o == nil {
		o = &DialOptions{}
	}
	network := o.Network
	if network == "" {
		network = "tcp"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	if o.TLS != nil {
		secure := tls.Client(conn, o.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("resp: TLS handshake with %s: %w", addr, err)
		}
		conn = secure
	}
	c := &Client{conn: conn, r: NewReader(conn)}
	if o.Password != "" {
		args := []string{"AUTH", o.Password}
		if o.Username != "" {
			args = []string{"AUTH", o.Username, o.Password}
		}
		if _, err := c.Do(ctx, args...); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Do sends one command and returns its reply. Pushes that arrive before it are skipped. An error reply is returned as
// an Error; when ctx ends first, the error is its cause.
func (c *Client) Do(ctx context.Context, args ...string) (Value, error) {
	if err := c.Send(ctx, AppendCommand(nil, args...)); err != nil {
		return Value{}, err
	}
	for {
		v, err := c.Receive(ctx)
		if err != nil {
			return Value{}, err
		}
		if v.Kind != '>' {
			return v, v.Err()
		}
	}
}

// Send writes raw bytes, which should be whole commands. Use it to pipeline.
func (c *Client) Send(ctx context.Context, raw []byte) error {
	defer c.guard(ctx)()
	if _, err := c.conn.Write(raw); err != nil {
		return c.failure(ctx, err)
	}
	return nil
}

// Receive reads the next frame: a reply (also an error reply, see Value.Err) or a push.
func (c *Client) Receive(ctx context.Context) (Value, error) {
	defer c.guard(ctx)()
	v, err := c.r.ReadValue()
	if err != nil {
		return Value{}, c.failure(ctx, err)
	}
	return v, nil
}

// guard makes the connection's calls end when ctx does, until the returned function is called.
func (c *Client) guard(ctx context.Context) (release func()) {
	c.conn.SetDeadline(time.Time{})
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetDeadline(time.Unix(1, 0))
		close(fired)
	})
	return func() {
		if !stop() {
			<-fired // or it might end the next call
		}
	}
}

func (c *Client) failure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return fmt.Errorf("resp: %s: %w", c.conn.RemoteAddr(), err)
}

// AppendCommand appends a command as an array of bulk strings to dst.
func AppendCommand[T string | []byte](dst []byte, args ...T) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	dst = append(dst, "\r\n"...)
	for _, a := range args {
		dst = append(dst, '$')
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, "\r\n"...)
		dst = append(dst, a...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
