package room

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Chunks are small, whole characters, and together the text.
func TestCut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, 400, -1).Draw(t, "text")
		pieces := cut(text)
		for _, p := range pieces {
			if p == "" || len(p) > chunkBytes || !utf8.ValidString(p) {
				t.Errorf("the chunk %q", p)
			}
			if len(pieces) > 1 && p != pieces[len(pieces)-1] && len(p) <= chunkBytes-utf8.UTFMax {
				t.Errorf("the chunk %q could hold more", p)
			}
		}
		if got := strings.Join(pieces, ""); got != text {
			t.Errorf("together they are %q, want %q", got, text)
		}
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		message Message
		fault   string // empty: none
	}{
		"one byte":         {Message{ID: "1", Author: "Ada", Text: "x"}, ""},
		"NUL":              {Message{ID: "1", Author: "Ada", Text: "a\x00b"}, ""},
		"the longest":      {Message{ID: "1", Author: "Ada", Text: strings.Repeat("x", MaxText)}, ""},
		"too long":         {Message{ID: "1", Author: "Ada", Text: strings.Repeat("x", MaxText+1)}, "64 KiB"},
		"empty":            {Message{ID: "1", Author: "Ada"}, "the message is empty"},
		"broken":           {Message{ID: "1", Author: "Ada", Text: "a\xffb"}, "UTF-8"},
		"nobody":           {Message{ID: "1", Text: "x"}, "name is empty"},
		"a long name":      {Message{ID: "1", Author: strings.Repeat("ü", 10_000), Text: "x"}, "10000 characters"},
		"the longest name": {Message{ID: "1", Author: strings.Repeat("ü", MaxAuthor), Text: "x"}, ""},
		"a broken name":    {Message{ID: "1", Author: "\xff", Text: "x"}, "can't be shown"},
		"a name of two":    {Message{ID: "1", Author: "a\nb", Text: "x"}, "can't be shown"},
		"no id":            {Message{Author: "Ada", Text: "x"}, "id"},
		"an id with colon": {Message{ID: "a:b", Author: "Ada", Text: "x"}, "id"},
	} {
		err := test.message.Validate()
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
	for _, room := range []string{"", "../x", "a b", "ü", strings.Repeat("x", 33), "a/b", "a:b"} {
		if CheckName(room) == nil {
			t.Errorf("the room %q is accepted", room)
		}
	}
}
