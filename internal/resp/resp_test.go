package resp_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/internal/resp"
)

func TestReadValueDecodesEveryKind(t *testing.T) {
	t.Parallel()
	bulk := func(s string) resp.Value { return resp.Value{Kind: '$', Text: s} }
	number := func(digits string, n int64) resp.Value { return resp.Value{Kind: ':', Text: digits, Int: n} }
	tests := map[string]struct {
		in   string
		want resp.Value
	}{
		"simple":       {"+OK\r\n", resp.Value{Kind: '+', Text: "OK"}},
		"error":        {"-NOSCRIPT none\r\n", resp.Value{Kind: '-', Text: "NOSCRIPT none"}},
		"integer":      {":-42\r\n", number("-42", -42)},
		"bulk":         {"$5\r\na\r\nbc\r\n", bulk("a\r\nbc")},
		"empty bulk":   {"$0\r\n\r\n", bulk("")},
		"null bulk":    {"$-1\r\n", resp.Value{Kind: '$', Null: true}},
		"null array":   {"*-1\r\n", resp.Value{Kind: '*', Null: true}},
		"null":         {"_\r\n", resp.Value{Kind: '_', Null: true}},
		"true":         {"#t\r\n", resp.Value{Kind: '#', Int: 1}},
		"false":        {"#f\r\n", resp.Value{Kind: '#'}},
		"double":       {",1.5\r\n", resp.Value{Kind: ',', Text: "1.5"}},
		"big number":   {"(99999999999999999999\r\n", resp.Value{Kind: '(', Text: "99999999999999999999"}},
		"bulk error":   {"!6\r\nERR no\r\n", resp.Value{Kind: '!', Text: "ERR no"}},
		"verbatim":     {"=6\r\ntxt:hi\r\n", resp.Value{Kind: '=', Text: "txt:hi"}},
		"nested array": {"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n", resp.Value{Kind: '*', Elems: []resp.Value{{Kind: '*', Elems: []resp.Value{number("1", 1)}}, bulk("x")}}},
		"map":          {"%1\r\n$1\r\nk\r\n:7\r\n", resp.Value{Kind: '%', Elems: []resp.Value{bulk("k"), number("7", 7)}}},
		"set":          {"~1\r\n:7\r\n", resp.Value{Kind: '~', Elems: []resp.Value{number("7", 7)}}},
		"push":         {">1\r\n$1\r\np\r\n", resp.Value{Kind: '>', Elems: []resp.Value{bulk("p")}}},
		"attribute":    {"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n", bulk("v")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// One byte a read: framing must not depend on how the bytes arrive.
			r := resp.NewReader(iotest.OneByteReader(strings.NewReader(tt.in + "+next\r\n")))
			got, err := r.ReadValue()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Transformer("elems", func(v []resp.Value) []resp.Value {
				return append([]resp.Value{}, v...)
			})); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			if string(r.Raw()) != tt.in {
				t.Errorf("raw = %q, want %q", r.Raw(), tt.in)
			}
			if next, err := r.ReadValue(); err != nil || next.Text != "next" {
				t.Errorf("the frame behind it = %+v, %v", next, err)
			}
		})
	}
}

func TestReadValueRefusesWhatIsNotRESP(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"hello\r\n", "\r\n", ":x\r\n", "#maybe\r\n", "$-2\r\n", "$x\r\n", "$2\r\nabcd", "*-7\r\n", "*9999999999\r\n",
		"$99999999999\r\n", strings.Repeat("*1\r\n", 50) + ":1\r\n", "+" + strings.Repeat("x", 70<<10),
	} {
		if _, err := resp.NewReader(strings.NewReader(in)).ReadValue(); !errors.Is(err, resp.ErrProtocol) {
			t.Errorf("ReadValue(%.40q) = %v, want ErrProtocol", in, err)
		}
	}
}

func TestReaderTellsTheTwoEndsApart(t *testing.T) {
	t.Parallel()
	whole := "*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n"
	for cut := range whole {
		want := io.ErrUnexpectedEOF
		if cut == 0 {
			want = io.EOF
		}
		if _, err := resp.NewReader(strings.NewReader(whole[:cut])).ReadValue(); err != want {
			t.Errorf("ReadValue after %d bytes = %v, want %v", cut, err, want)
		}
		if _, err := resp.NewReader(strings.NewReader(whole[:cut])).ReadCommand(); err != want {
			t.Errorf("ReadCommand after %d bytes = %v, want %v", cut, err, want)
		}
	}
}

func TestReadCommand(t *testing.T) {
	t.Parallel()
	stream := string(resp.AppendCommand(nil, "SET", "k", "a\r\nb")) + "\r\nPING  hello\r\n" + string(resp.AppendCommand(nil, "GET", "k"))
	r := resp.NewReader(strings.NewReader(stream))
	want := [][]string{{"SET", "k", "a\r\nb"}, {"PING", "hello"}, {"GET", "k"}}
	var raw []byte
	for _, w := range want {
		args, err := r.ReadCommand()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range args {
			got = append(got, string(a))
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
		raw = append(raw, r.Raw()...)
	}
	if got, want := string(raw), strings.Replace(stream, "\r\nPING", "PING", 1); got != want {
		t.Errorf("raw bytes = %q, want %q", got, want)
	}
	if _, err := resp.NewReader(strings.NewReader("*1\r\n:1\r\n")).ReadCommand(); !errors.Is(err, resp.ErrProtocol) {
		t.Errorf("a command of integers = %v, want ErrProtocol", err)
	}
}

// FuzzReader holds that no stream panics or hangs the reader, and that raw bytes read again give the same frame.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", "*2\r\n$1\r\na\r\n_\r\n", "%1\r\n+k\r\n#t\r\n", "|1\r\n+a\r\n:1\r\n*0\r\n", "$-1\r\n", ">1\r\n$0\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := resp.NewReader(bytes.NewReader(in))
		v, err := r.ReadValue()
		if err != nil {
			return
		}
		if !bytes.HasPrefix(in, r.Raw()) {
			t.Fatalf("raw %q is no prefix of %q", r.Raw(), in)
		}
		again, err := resp.NewReader(bytes.NewReader(r.Raw())).ReadValue()
		if err != nil {
			t.Fatalf("reading %q again: %v", r.Raw(), err)
		}
		if diff := cmp.Diff(v, again); diff != "" {
			t.Fatalf("read again (-first +second):\n%s", diff)
		}
	})
}
