package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/crowd"
	"github.com/waggleq/waggle/examples/chat/room"
	"github.com/waggleq/waggle/examples/chat/web"
	"github.com/waggleq/waggle/examples/chat/wire"
)

// site is a web server and a worker on a SQLite file.
type site struct {
	t     *testing.T
	url   string
	place *room.Place

	server *web.Server
}

func startSite(t *testing.T) *site {
	t.Helper()
	place, err := room.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "chat.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { place.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	role := &wire.Role{Kind: wire.Web, Name: "A1", Port: port, Peers: map[string]int{"A1": port, "A2": 1}, Room: "lobby"}
	chat := web.New(role, place, web.NewStage(io.Discard))
	server := httptest.NewUnstartedServer(chat.Handler())
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	startWorker(t, place)
	return &site{t: t, url: server.URL, place: place, server: chat}
}

func startWorker(t *testing.T, place *room.Place) {
	t.Helper()
	worker, err := waggle.NewWorker(place.Store, &waggle.WorkerOptions{Queues: []waggle.Queue{{Name: room.Queue}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	room.NewWriter(place.Database, "W1").Register(worker)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// post sends a message and returns the status and what is said.
func (s *site) post(roomName, id, author, text string) (int, string) {
	s.t.Helper()
	query := url.Values{"id": {id}, "author": {author}}
	return s.do(http.MethodPost, "/rooms/"+url.PathEscape(roomName)+"/messages?"+query.Encode(), strings.NewReader(text), nil)
}

func (s *site) do(method, path string, body io.Reader, header map[string]string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, value := range header {
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(said)
}

// append enters messages in the room's log, however often that takes on a busy disk.
func (s *site) append(batch []room.Message) {
	s.t.Helper()
	err := room.ErrUnavailable
	for errors.Is(err, room.ErrUnavailable) {
		_, err = s.place.Database.Append(s.t.Context(), "lobby", batch)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// untouched checks that nothing is stored of what was refused.
func (s *site) untouched() {
	s.t.Helper()
	queues, err := s.place.Client.Queues(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, q := range queues {
		if q.Totals.Enqueued > 0 {
			s.t.Errorf("queue %s has had %d chunks", q.Name, q.Totals.Enqueued)
		}
	}
	if n, err := s.place.Database.Length(s.t.Context(), "lobby"); n != 0 || err != nil {
		s.t.Errorf("the room has %d messages, %v", n, err)
	}
}

// Each thing that can't be gets a clear answer, and leaves nothing behind.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for name, test := range map[string]struct {
		room, id, author, text string
		status                 int
		says                   string
	}{
		"empty":                 {"lobby", "1", "Ada", "", 400, "the message is empty"},
		"over the limit":        {"lobby", "1", "Ada", strings.Repeat("x", room.MaxText+1), 413, "longer than 64 KiB"},
		"a name of 10 000":      {"lobby", "1", strings.Repeat("x", 10_000), "hello", 400, "the name has 10000 characters, 40 are allowed"},
		"no name":               {"lobby", "1", "", "hello", 400, "the name is empty"},
		"a name with an end":    {"lobby", "1", "a\x00b", "hello", 400, "can't be shown"},
		"a room upwards":        {"../x", "1", "Ada", "hello", 400, "the name of a room"},
		"a long room":           {strings.Repeat("x", 1000), "1", "Ada", "hello", 400, "the name of a room"},
		"broken UTF-8":          {"lobby", "1", "Ada", "a\xff\xfeb", 400, "not valid UTF-8"},
		"half a character":      {"lobby", "1", "Ada", "🐝"[:3], 400, "not valid UTF-8"},
		"no id":                 {"lobby", "", "Ada", "hello", 400, "the id of a message"},
		"an id with a colon":    {"lobby", "a:1", "Ada", "hello", 400, "the id of a message"},
		"a name of broken text": {"lobby", "1", "\xff", "hello", 400, "can't be shown"},
	} {
		if status, said := s.post(test.room, test.id, test.author, test.text); status != test.status || !strings.Contains(said, test.says) {
			t.Errorf("%s: %d %s, want %d %s", name, status, said, test.status, test.says)
		}
	}
	for _, path := range []string{"/rooms/..%2fx/events", "/rooms/lobby/events?after=-1", "/rooms/lobby/events?after=x"} {
		if status, said := s.do(http.MethodGet, path, nil, nil); status != 400 || !strings.Contains(said, "error") {
			t.Errorf("%s: %d %s", path, status, said)
		}
	}
	s.untouched()
}

// A message that is sent again is the same one; another text with its id is refused.
func TestRepeatedID(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for range 3 {
		if status, said := s.post("lobby", "1", "Ada", "hello"); status != 202 {
			t.Fatalf("%d %s", status, said)
		}
	}
	for _, other := range [][2]string{{"Ada", "good-bye"}, {"Bob", "hello"}} {
		if status, said := s.post("lobby", "1", other[0], other[1]); status != 409 || !strings.Contains(said, "another message") {
			t.Errorf("%d %s", status, said)
		}
	}
	if status, said := s.post("other", "1", "Bob", "in another room it is another message"); status != 202 {
		t.Errorf("%d %s", status, said)
	}
	u := &crowd.User{Name: "reader", Room: "lobby", Servers: []string{s.url, s.url}, History: check.NewHistory()}
	seen := make(chan room.Entry, 10)
	u.OnSeen = func(e room.Entry) { seen <- e }
	ctx, cancel := context.WithCancel(t.Context())
	defer u.Close()
	done := make(chan struct{})
	go func() { defer close(done); u.Listen(ctx) }()
	if e := <-seen; e.Number != 1 || e.Text != "hello" {
		t.Errorf("%+v", e)
	}
	if status, _ := s.post("lobby", "2", "Ada", "again"); status != 202 {
		t.Error(status)
	}
	if e := <-seen; e.Number != 2 || e.ID != "2" {
		t.Errorf("%+v", e)
	}
	cancel()
	<-done
}

// A flood from one client is held back and told so, and nobody else is.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	flood := map[string]string{"X-Chat-Client": "flood"}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 16 { // until one is limited, however slow the machine is
		wg.Go(func() {
			for ctx.Err() == nil {
				status, said := s.do(http.MethodPost, "/rooms/lobby/messages?author=Flood&id=f", strings.NewReader(""), flood)
				if status == http.StatusTooManyRequests && strings.Contains(said, "faster") {
					stop()
				} else if status != http.StatusBadRequest { // empty, so that the flood costs the test nothing
					t.Errorf("%d %s", status, said)
					stop()
				}
			}
		})
	}
	wg.Wait()
	stop()
	status, said := s.do(http.MethodPost, "/rooms/lobby/messages?author=Ada&id=a", strings.NewReader("hello"), map[string]string{"X-Chat-Client": "other"})
	if status != http.StatusAccepted {
		t.Errorf("another client: %d %s", status, said)
	}
}

// A body that never ends is given up, and its connection with it; others are served meanwhile.
func TestBodyWithoutEnd(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /rooms/lobby/messages?id=1&author=Ada HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\nhel", strings.TrimPrefix(s.url, "http://"))
	if status, said := s.post("lobby", "2", "Bob", "hello"); status != http.StatusAccepted {
		t.Errorf("meanwhile: %d %s", status, said)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if said, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(said), "did not arrive whole") {
		t.Errorf("%s %s", answer.Status, said)
	}
}

// A reader that does not read is cut off, and others get everything meanwhile. When it comes back it misses nothing.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	slow, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	_ = slow.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(slow, "GET /rooms/lobby/events HTTP/1.1\r\nHost: %s\r\n\r\n", strings.TrimPrefix(s.url, "http://"))

	h := check.NewHistory()
	reader := &crowd.User{Name: "reader", Room: "lobby", Servers: []string{s.url, s.url}, History: h}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); reader.Listen(ctx) }()
	defer func() { cancel(); <-done; reader.Close() }()
	const messages, atOnce = 160, 5 // of 64 KiB: more than the buffers of a connection hold
	for i := range messages / atOnce {
		batch := make([]room.Message, atOnce)
		for k := range batch {
			m := room.Message{ID: fmt.Sprint("m", i*atOnce+k), Author: "Ada", Text: strings.Repeat("x", room.MaxText-k)}
			h.Sent(m.ID, m.Author, m.Text)
			h.Accepted(m.ID)
			batch[k] = m
		}
		s.append(batch) // chunks take a longer way to the same log
	}
	for !h.Complete() {
		time.Sleep(10 * time.Millisecond) // until the reader has all
	}
	if r := h.Check(); !r.OK() {
		t.Errorf("%+v", r)
	}
	for s.server.Users() > 1 {
		time.Sleep(10 * time.Millisecond) // until the server has cut it off, after five seconds
	}
}

// No page of another site gets in, by whatever name it calls the server; the page itself, its sister and a plain client do.
func TestGuard(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	host := strings.TrimPrefix(s.url, "http://")
	port := host[strings.LastIndexByte(host, ':'):]
	routes := [][2]string{
		{"GET", "/"}, {"GET", "/chat.js"}, {"GET", "/about"}, {"GET", "/rooms/lobby/events"}, {"OPTIONS", "/nodes/B1/kill"},
		{"POST", "/rooms/lobby/messages?id=1&author=Eve"}, {"POST", "/nodes/B1/kill"}, {"DELETE", "/about"},
	}
	for name, header := range map[string]map[string]string{
		"another origin":      {"Origin": "http://example.com"},
		"another port":        {"Origin": "http://127.0.0.1:2"},
		"no origin to name":   {"Origin": "null"},
		"another site":        {"Sec-Fetch-Site": "cross-site"},
		"the same site":       {"Sec-Fetch-Site": "same-site"},
		"a name from outside": {"Host": "example.com" + port},
		"another port's name": {"Host": "127.0.0.1:2"},
	} {
		for _, route := range routes {
			header["X-Chat-Control"] = "1"
			if status, said := s.do(route[0], route[1], strings.NewReader("x"), header); status != http.StatusForbidden {
				t.Errorf("%s: %s %s: %d %s", name, route[0], route[1], status, said)
			}
		}
	}
	s.untouched()
	if status, said := s.do("POST", "/nodes/B1/kill", nil, nil); status != http.StatusForbidden || !strings.Contains(said, "X-Chat-Control") {
		t.Errorf("without the header: %d %s", status, said)
	}
	for name, header := range map[string]map[string]string{
		"a plain client": {}, "its own page": {"Origin": "http://localhost" + port}, "its sister": {"Origin": "http://127.0.0.1:1"},
		"a link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
	} {
		if status, said := s.do("GET", "/", nil, header); status != http.StatusOK {
			t.Errorf("%s: %d %s", name, status, said)
		}
	}
	answer, err := http.Get(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if p := answer.Header.Get("Content-Security-Policy"); strings.Contains(p, "unsafe") || !strings.Contains(p, "default-src 'none'") {
		t.Errorf("the policy is %q", p)
	}
}
