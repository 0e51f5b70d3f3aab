package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLedgerFindsWhatDidNotRunOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		runs []int
		want string
	}{
		"all once": {[]int{2, 0, 1}, ""},
		"lost":     {[]int{0, 1}, "3 tasks were enqueued, 2 ran"},
		"twice":    {[]int{0, 1, 1}, "task 1 ran twice"},
		"foreign":  {[]int{0, 1, 7}, "task 7 was never enqueued"},
	} {
		book := newLedger(3)
		for _, n := range tt.runs {
			book.run(payloadOf(n))
		}
		got := ""
		if err := book.check(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	for _, want := range []int{0, 7, 12_345_678, 99_999_999} {
		p := payloadOf(want)
		if n, err := numberOf(p); err != nil || n != want || !json.Valid(p) {
			t.Errorf("%s: number %d, error %v, valid %v; want %d", p, n, err, json.Valid(p), want)
		}
	}
	if _, err := numberOf([]byte("{}")); err == nil {
		t.Error("a foreign payload has a number")
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	b := newBoard(sqliteFigures)
	for i, v := range []float64{50_000, 100_000, 200_000} {
		b.add(bareProcess, v)
		b.add(process, v/[]float64{2, 4, 5}[i]) // 25 000, 25 000, 40 000
		b.add(hereTail, float64(i), 5)
		b.add(recoverShort, float64(i))
	}
	got := map[string]row{}
	for _, r := range b.rows() {
		got[r.ID] = r
	}
	yes, no, quarter := true, false, 0.25
	want := map[string]row{
		bareProcess:  {Unit: "tasks/s", Value: 100_000, Low: 50_000, High: 200_000, Samples: 3},
		process:      {Unit: "tasks/s", Goal: "≥ 40 000, ≥ 0.4 ×", Value: 25_000, Low: 25_000, High: 40_000, Samples: 3, Ratio: &quarter, Of: bareProcess, Met: &no},
		hereTail:     {Unit: "ms", Goal: "≤ 10", Value: 5, Low: 5, High: 5, Samples: 6, Met: &yes},
		recoverShort: {Unit: "s", Goal: "≤ 2", Value: 2, High: 2, Samples: 3, Met: &yes},
	}
	for id, w := range want {
		w.ID, w.What = id, got[id].What
		if diff := cmp.Diff(w, got[id]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

func TestBothGoalsCount(t *testing.T) {
	t.Parallel()
	b := newBoard(sqliteFigures)
	b.add(bareProcess, 200_000)
	b.add(process, 50_000) // enough a second, too little of the bare loop
	r := &report{Rows: b.rows()}
	if diff := cmp.Diff([]string{process}, r.missed()); diff != "" {
		t.Errorf("missed (-want +got):\n%s", diff)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.4: "0.4", 1.234: "1.23", 12.34: "12.3", 40: "40", 350: "350", 60_000: "60 000", 1_234_567.8: "1 234 568", -1234: "-1 234"} {
		if got := number(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

func TestPageHasEveryRow(t *testing.T) {
	t.Parallel()
	for name, suite := range suites {
		b := newBoard(suite.figures)
		for _, f := range suite.figures {
			b.add(f.id, 1)
		}
		set := &settings{suite: suite, sizes: suite.full, server: "redis"}
		how, err := suite.describe(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		r := &report{Rows: b.rows(), Settings: how}
		page := suite.page(r, set)
		for _, row := range r.Rows {
			if !strings.Contains(page, "| "+row.What+" |") {
				t.Errorf("%s: the page says nothing of %q", name, row.What)
			}
		}
		if strings.Contains(page, "%!") {
			t.Errorf("%s: a part of the page was not filled in:\n%s", name, page)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-o", "xml"}, {"-only", "nothing"}, {"bulk"}, {"-quick", "-write", "x.md"}, {"-only", "bulk", "-write", "x.md"},
		{"-engine", "paper"}, {"-engine", "redis", "-only", "bulk"}, {"-server", "keydb"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
