package redisstore

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/waggleq/waggle/redisstore/internal/layout"
)

var (
	byteCount  = regexp.MustCompile(`\b(?:sub|byte)\([^()]*, *\d+|unpack\('.*|\bnumber\(.*`)
	flagCount  = regexp.MustCompile(`flags\S* (?:%|/) \d+`)
	bareNumber = regexp.MustCompile(`\b(?:17592186044416|1735689600000)\b`)
	counted    = regexp.MustCompile(`count\('(\w+)'`)
)

// TestScriptsNameFields finds scripts that count the bytes of a record, or test bits of its flags, instead of naming them.
func TestScriptsNameFields(t *testing.T) {
	t.Parallel()
	err := fs.WalkDir(luaFiles, "lua", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := luaFiles.ReadFile(name)
		if err != nil {
			return err
		}
		code := stripComments(string(b))
		for _, re := range []*regexp.Regexp{byteCount, flagCount, bareNumber} {
			for _, found := range re.FindAllString(code, -1) {
				if found != "sub(r.tail, 1" && !(name == "lua/enqueue.lua" && strings.HasPrefix(found, "flags %")) { // no parts of records
					t.Errorf("%s has %q: name the field, see lua/LAYOUT.md", name, found)
				}
			}
		}
		for _, m := range counted.FindAllStringSubmatch(code, -1) {
			last := m[1][:1]
			if !strings.Contains(statLetters+keptLetters, last) {
				t.Errorf("%s counts %q, which no table explains", name, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestScriptsHaveWhatAccessorsWant finds scripts whose accessors became calls of functions that are not there.
func TestScriptsHaveWhatAccessorsWant(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		uses := regexp.MustCompile(`(^|[^.\w])(sub|byte|number|pack)\(`).MatchString(stripComments(s.text))
		if has := strings.Contains(s.text, "local sub, byte, number, pack ="); uses && !has {
			t.Errorf("%s.lua uses accessors and does not include record.lua", s.name)
		}
		if left, err := layout.Expand(s.text); err != nil || left != s.text {
			t.Errorf("%s.lua still has accessors: %v", s.name, err)
		}
	}
}
