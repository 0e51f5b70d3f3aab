//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waggleq/waggle/examples/stage/stagetest"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

func TestMain(m *testing.M) { stagetest.Main(m, roleVariable, main) }

// With the payment service frozen and a café killed, every drink is served once and every card charged once, on every store;
// and nothing is left of it.
func TestEveryDrinkOnce(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":  func(*testing.T) string { return "" },
		"redis":   func(t *testing.T) string { return redistest.Start(t, nil).URL() },
		"cluster": func(t *testing.T) string { return redistest.StartCluster(t, nil).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stagetest.Prepare(t, "-orders", "6", "-over", "2s", "-o", "json", "-store", url(t))
			var out bytes.Buffer
			p.Cmd.Stdout = &out
			if err := p.Cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, &p.Err)
			}
			var f map[string]int
			if err := json.Unmarshal(out.Bytes(), &f); err != nil {
				t.Fatalf("%v: %s", err, &out)
			}
			took := f["recovery_ms"]
			delete(f, "recovery_ms")
			want := `{"charged":6,"charged_twice":0,"killed":1,"orders":6,"served":6,"served_twice":0}`
			if got, _ := json.Marshal(f); string(got) != want || took <= 0 {
				t.Errorf("%s, recovery %d ms, want %s", got, took, want)
			}
			p.Gone()
		})
	}
}

// A program that is told to end, or killed, takes all its processes and files with it.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]os.Signal{"interrupt": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stagetest.Prepare(t)
			out, err := p.Cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var all []byte
			for b := make([]byte, 4096); !bytes.Contains(all, []byte("is paid for")); {
				n, err := out.Read(b)
				if all = append(all, b[:n]...); err != nil {
					t.Fatalf("%v: %s%s", err, all, &p.Err)
				}
			}
			if n := len(p.Processes()); n < 8 { // itself, three cafés, three services, the sweeper
				t.Errorf("there are %d processes", n)
			}
			if err := p.Cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = p.Cmd.Wait() // the day is not over: it has failed
			p.Gone()
		})
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-orders", "0"}, {"-orders", "x"}, {"-orders", "100000"}, {"-over", "-1s"}, {"-o", "xml"}, {"tea"}, {"-store", "memory:"}, {"-store", "ftp://x"}} {
		p := stagetest.Prepare(t, args...)
		if err := p.Cmd.Run(); p.Cmd.ProcessState.ExitCode() != 2 || p.Err.Len() == 0 {
			t.Errorf("%v: %v: %s", args, err, &p.Err)
		}
		p.Gone()
	}
}

// The payment service charges a key once and refuses an old token, also after it was started again.
func TestPayments(t *testing.T) {
	t.Parallel()
	path := paymentLedger(t.TempDir())
	var told []string
	open := func() *payments {
		p, err := newPayments(path, func(n News) { told = append(told, n.Kind) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.ledger.file.Close() })
		return p
	}
	p := open()
	ask := func(key string, token int64, want int, receipt int) {
		t.Helper()
		if status, a := p.charge(Charge{Key: key, Token: token, Cents: 300}); status != want || a.Receipt.Number != receipt {
			t.Errorf("key %s, token %d: %d, receipt %d; want %d, receipt %d", key, token, status, a.Receipt.Number, want, receipt)
		}
	}
	ask("a", 2, http.StatusOK, 1)
	ask("a", 2, http.StatusConflict, 1)           // its answer was lost
	ask("a", 3, http.StatusConflict, 1)           // its café was killed
	ask("a", 2, http.StatusPreconditionFailed, 0) // and comes back
	ask("b", 1, http.StatusOK, 2)
	p = open()
	ask("b", 2, http.StatusConflict, 2)
	ask("a", 1, http.StatusPreconditionFailed, 0)
	if got := strings.Join(told, " "); got != "charged repeated-key repeated-key old-token charged repeated-key old-token" {
		t.Error(got)
	}
	if entries, err := readLedger(path); err != nil || len(entries) != 2 || entries[1].Order != "b" || entries[1].Token != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
}

// Whoever judges the day sees what goes wrong in the ledgers.
func TestJudge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		charged, served []int
		want            string
	}{
		"good":          {[]int{1, 2, 3}, []int{3, 1, 2}, ""},
		"no drink":      {[]int{1, 2, 3}, []int{3, 1}, "1 guest got no drink"},
		"not paid for":  {[]int{1}, []int{1, 2, 3}, "2 drinks not paid for"},
		"served twice":  {[]int{1, 2, 3}, []int{1, 2, 3, 3}, "1 drink served twice"},
		"charged twice": {[]int{1, 1, 2, 3, 2}, []int{1, 2, 3}, "2 cards charged twice"},
		"no order":      {[]int{1, 2, 3, 4}, []int{1, 2, 3}, "1 card charged twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &day{o: &options{orders: 3}, dir: t.TempDir(), id: "cafe-x"}
			d.faults.killed = 1
			for path, orders := range map[string][]int{paymentLedger(d.dir): c.charged, counterLedger(d.dir): c.served} {
				l, err := openLedger(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range orders {
					if _, err := l.add(Entry{Order: orderID(d.id, n)}); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.file.Close(); err != nil {
					t.Fatal(err)
				}
			}
			f, err := d.judge()
			if err != nil {
				t.Fatal(err)
			}
			err = d.verdict(f)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := readLedger(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
}
