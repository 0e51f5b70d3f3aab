package plainjson_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/waggleq/waggle/internal/plainjson"
)

func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   any
		want string
	}{
		{"<a href=\"x?y&z\">\n", `"<a href=\"x?y&z\">\n"`},
		{map[string]string{"<k>": "&"}, `{"<k>":"&"}`},
		{json.RawMessage(`{"a" : "<"}`), `{"a":"<"}`},
		{[]any{1, nil, true}, `[1,null,true]`},
		{"a\n", `"a\n"`},
		{nil, "null"},
	} {
		got, err := plainjson.Marshal(c.in)
		if err != nil || string(got) != c.want {
			t.Errorf("Marshal(%#v) = %s, %v; want %s", c.in, got, err, c.want)
		}
	}
	if _, err := plainjson.Marshal(func() {}); err == nil {
		t.Error("a function is encoded")
	}
}

// FuzzString has any text come out as it went in, at the length that encoding/json gives it without its escapes.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "a", "<&>", "\u2028", "\x00", "\xff", "\\u003c", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got, want any
		usual, err := json.Marshal(s)
		if err != nil || json.Unmarshal(usual, &want) != nil {
			t.Skip()
		}
		if err := json.Unmarshal(plainjson.String(s), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is read as %q, %v; want %q", s, got, err, want)
		}
	})
}
