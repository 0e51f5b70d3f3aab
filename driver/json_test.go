package driver

import (
	"encoding/json"
	"strings"
	"testing"
)

var jsonExamples = []string{
	``, ` `, `1`, `-1`, `-`, `01`, `1.`, `1.5`, `.5`, `1e5`, `1E+5`, `1e-`, `1e`, `0`, `-0`, `0.0e0`, `+1`, `1 2`, "\x00", "1\x00",
	`""`, `"`, `"a"`, `"\n"`, `"\x"`, `"\u00e9"`, `"\u00AF"`, `"\u00g0"`, `"\u00`, `"\`, "\"\n\"", "\"\xff\"", `"é"`, `"a" "b"`, `'a'`,
	`"\u@000"`, `"\u000` + "\x10" + `"`, `true`, `false`, `null`, `tru`, `truee`, `nul`, `True`,
	`[]`, `[`, `]`, `[1]`, `[1,]`, `[,1]`, `[1 2]`, `[ 1 , 2 ]`, "\t[\r\n]\n", `[[[]]]`, `[}`,
	`{}`, `{`, `{"a":1}`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{1:1}`, `{ "a" : [ { } , null ] , "b" : "c" }`, `{"a":1 "b":2}`, `{]`,
	`{"n":12345678,"pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`,
}

func TestValidJSON(t *testing.T) {
	t.Parallel()
	cases := jsonExamples
	for _, n := range []int{maxJSONDepth, maxJSONDepth + 1} {
		cases = append(cases, strings.Repeat("[", n)+strings.Repeat("]", n), strings.Repeat(`{"a":`, n)+"1"+strings.Repeat("}", n))
	}
	for _, text := range cases {
		if got, want := validJSON([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("%.40q… (%d bytes): %v, encoding/json says %v", text, len(text), got, want)
		}
	}
}

func FuzzValidJSON(f *testing.F) {
	for _, text := range jsonExamples {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := validJSON(b), json.Valid(b); got != want {
			t.Errorf("%q: %v, encoding/json says %v", b, got, want)
		}
	})
}

func BenchmarkValidJSON(b *testing.B) {
	payload := []byte(jsonExamples[len(jsonExamples)-1])
	for name, valid := range map[string]func([]byte) bool{"own": validJSON, "encoding-json": json.Valid} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if !valid(payload) {
					b.Fatal("not valid")
				}
			}
		})
	}
}
