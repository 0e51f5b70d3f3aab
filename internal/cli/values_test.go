package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second, "3d": 72 * time.Hour,
		"1d12h": 36 * time.Hour, "36500d": 36500 * 24 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "s", "-1s", "1d-1h", "-1d", "d", "36501d", "99999999999h", "1e9s", "1d1d", "NaN", "+Inf", "1 h"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("CET", 3600)
	for in, want := range map[string]string{
		"2030-12-31T08:00:00Z":          "2030-12-31T08:00:00Z",
		"2030-12-31T08:00:00.125+02:00": "2030-12-31T06:00:00.125Z",
		"2030-12-31 08:00":              "2030-12-31T07:00:00Z",
		"2030-12-31T08:00:30":           "2030-12-31T07:00:30Z",
		"2030-12-31":                    "2030-12-30T23:00:00Z",
	} {
		got, err := parseTime(in, berlin)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("parseTime(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "tomorrow", "2030-13-01", "08:00", "1893484800"} {
		if got, err := parseTime(in, berlin); err == nil {
			t.Errorf("parseTime(%q) = %v, want an error", in, got)
		}
	}
}

func TestParseQueue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]waggle.Queue{"q": {Name: "q", Weight: 1}, "a:b=12": {Name: "a:b", Weight: 12}} {
		if got, err := parseQueue(in); err != nil || got != want {
			t.Errorf("parseQueue(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "=1", "q=", "q=0", "q=-1", "q=1001", "q=1=2", "a b"} {
		if got, err := parseQueue(in); err == nil {
			t.Errorf("parseQueue(%q) = %v, want an error", in, got)
		}
	}
}

// collect reads all lines of a stream.
func collect(t *testing.T, in io.Reader, limit int) (texts []string, bad []int) {
	t.Helper()
	r := newLineReader(in, limit)
	for {
		payload, number, err := r.next()
		refused, isBad := errors.AsType[*badLine](err)
		switch {
		case errors.Is(err, io.EOF):
			return texts, bad
		case isBad:
			if refused.number != number {
				t.Errorf("line %d is told as line %d", number, refused.number)
			}
			bad = append(bad, number)
		case err != nil:
			t.Fatal(err)
		default:
			texts = append(texts, string(payload))
		}
	}
}

func TestLineReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200_000)
	for _, c := range []struct {
		in    string
		limit int
		want  []string
		bad   []int
	}{
		{"", 10, nil, nil},
		{"\n", 10, []string{""}, nil},
		{"a", 10, []string{"a"}, nil},
		{"a\nb\r\n\nc\r", 10, []string{"a", "b", "", "c\r"}, nil},
		{"12345\n123456\n12345", 5, []string{"12345", "12345"}, []int{2}},
		{"\uFEFFa\n\uFEFFb", 10, []string{"a", "\uFEFFb"}, nil}, // a byte order mark
		{"12345\r\n", 5, []string{"12345"}, nil},
		{"a\xff\nb", 10, []string{"b"}, []int{1}},
		{long + "\nend", 100, []string{"end"}, []int{1}},
		{long + "\nend", 1 << 20, []string{long, "end"}, nil},
	} {
		got, bad := collect(t, strings.NewReader(c.in), c.limit)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("lines of %.40q (-want +got):\n%s", c.in, diff)
		}
		if diff := cmp.Diff(c.bad, bad); diff != "" {
			t.Errorf("refused lines of %.40q (-want +got):\n%s", c.in, diff)
		}
	}
}

func TestLineReaderTellsOfBrokenStreams(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	r := newLineReader(io.MultiReader(strings.NewReader("one\ntw"), &failing{broken}), 100)
	if _, _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.next(); !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error: %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestVisible(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain ä":              "plain ä",
		"a\nb\tc":              "a b c",
		"\x1b[31mred":          "·[31mred",
		"bidi \u202e override": "bidi · override",
		"\xff":                 "\uFFFD",
		"nul\x00":              "nul·",
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range driver.ErrorClasses {
		if got := exitCode(t.Context(), driver.Errorf(c.Err, "x")); got != c.Exit {
			t.Errorf("exit code of %v: %d, want %d", c.Err, got, c.Exit)
		}
	}
	if got := exitCode(t.Context(), partlyf("x: %w", driver.ErrUnavailable)); got != exitPartly {
		t.Errorf("partly: %d", got)
	}
}
