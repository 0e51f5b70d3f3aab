package readmetest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// A "~" stands for a backquote in the documents below.
func parse(t *testing.T, path, text string) *Document {
	t.Helper()
	doc, err := Parse(path, strings.ReplaceAll(text, "~", "`"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestParseFailsOnOpenBlock(t *testing.T) {
	t.Parallel()
	_, err := Parse("a.md", "# A\n\n```go\nx := 1\n")
	if want := "a.md:3: this block is never closed"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	packages, err := Packages(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, text string
		fault      string // part of the compiler's message; empty if it compiles
	}{
		{name: "program", text: "~~~go\npackage main\n\nfunc main() {}\n~~~\n"},
		{name: "statements", text: "~~~go\nurl := \"a\"\nfmt.Println(strings.ToUpper(url))\n~~~\n"},
		{name: "declarations", text: "~~~go\ntype T struct{ D time.Duration }\n\nfunc (T) m() {}\n~~~\n"},
		{name: "own import", text: "~~~go\nimport (\n\tr \"math/rand/v2\"\n)\n\n_ = r.Int()\n~~~\n"},
		{
			name: "signature",
			text: "<!-- go: (ctx context.Context) error -->\n\n~~~go\nif err := ctx.Err(); err != nil {\n\treturn err\n}\n~~~\n",
		},
		{name: "in a list", text: "- so:\n\n  ~~~go\n  fmt.Println(`a\n  b`)\n  ~~~\n"},
		{name: "another language", text: "~~~text\nnothing here is Go\n~~~\n"},
		{name: "unknown name", text: "# A\n\n~~~go\nimport \"os\"\n\n_ = os.Args\nclient.Enqueue()\n~~~\n", fault: "a.md:7: undefined: client"},
		{name: "unused variable", text: "~~~go\nx := 1\n~~~\n", fault: "a.md:2: declared and not used: x"},
		{name: "wrong type", text: "~~~go\nvar n int = \"one\"\n~~~\n", fault: "a.md:2: cannot use"},
		{name: "broken program", text: "~~~go\npackage main\n\nfunc main() { gone() }\n~~~\n", fault: "a.md:4: undefined: gone"},
		{name: "missing import in a program", text: "~~~go\npackage main\n\nfunc main() { fmt.Println() }\n~~~\n", fault: "a.md:4: undefined: fmt"},
		{name: "package that is gone", text: "~~~go\nimport \"" + "github.com/waggleq/waggle/gone\"\n\ngone.Do()\n~~~\n", fault: "gone"},
		{name: "not Go", text: "~~~go\nif this then that\n~~~\n", fault: "a.md:2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, err := filepath.Abs(moduleDir)
			if err != nil {
				t.Fatal(err)
			}
			snippets, err := Snippets([]*Document{parse(t, "a.md", tt.text)}, packages)
			if err == nil {
				err = Compile(root, t.TempDir(), snippets)
			}
			switch {
			case tt.fault == "" && err != nil:
				t.Error(err)
			case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
				t.Errorf("got error %v, want one with %q", err, tt.fault)
			}
		})
	}
}

func TestCheckLinks(t *testing.T) {
	t.Parallel()
	docs := []*Document{
		parse(t, "README.md", "# The house: a *tour*\n\n# Twice\n\n# Twice\n"+
			"[ok](docs/a.md) [ok](docs/a.md#why-not) [ok](#the-house-a-tour) [ok](#twice-1)\n"+
			"[ok](https://example.com/x) [ok](mailto:x@example.com) ~[code](gone.md)~ ![ok](docs/p.png \"title\")\n"+
			"[bad](docs/b.md)\n[bad](docs/a.md#gone) [bad](#gone)\n\n[ref]: gone.md\n\n<img src=\"gone.png\">\n[bad](/README.md)\n"),
		parse(t, "docs/a.md", "## Why not?\n\n[ok](../README.md) [bad](README.md) [bad](../../above.md)\n\n~~~text\n[code](gone.md)\n~~~\n"),
	}
	root := fstest.MapFS{"README.md": {}, "docs/a.md": {}, "docs/p.png": {}}
	want := []string{
		"README.md:8: link docs/b.md",
		"README.md:9: link docs/a.md#gone",
		"README.md:9: link #gone",
		"README.md:11: link gone.md",
		"README.md:13: link gone.png",
		"README.md:14: link /README.md",
		"docs/a.md:3: link README.md",
		"docs/a.md:3: link ../../above.md",
	}
	got := CheckLinks(root, docs)
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got faults\n%s\nwant faults that begin with\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCheckCommands(t *testing.T) {
	t.Parallel()
	doc := parse(t, "README.md", strings.Join([]string{
		"~~~sh",
		"make test && make fuzz FUZZTIME=1m # make nothing",
		"$ WAGGLE_STORE=x waggle enqueue email.welcome --in 5s",
		"find . | waggle task list -o json",
		"go run ./cmd/waggle work --concurrency 4 -- sha256sum --gone {}",
		"make nothing",
		"waggle dance",
		"bin/waggle task dance",
		"waggle enqueue email.welcome --in-full",
		"~~~",
		"~~~text",
		"make nothing",
		"~~~",
	}, "\n"))
	makefile := "GO := go\n.PHONY: test\ntest: lint ## Run\nfuzz:\n\tscripts/fuzz\n"
	want := []string{
		"README.md:6: the Makefile has no target nothing",
		"README.md:7: waggle has no command dance",
		"README.md:8: waggle has no command task dance",
		"README.md:9: waggle enqueue has no flag --in-full",
	}
	if got := CheckCommands(doc, MakeTargets(makefile), fakeHelp); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// fakeHelp answers as cobra does: for a subcommand that does not exist, with the
// help of the command above it.
func fakeHelp(words []string) (string, error) {
	const root = "Usage:\n  waggle [command]\n"
	texts := map[string]string{
		"enqueue":   "Usage:\n  waggle enqueue TYPE [JSON|-] [flags]\n\nFlags:\n      --in duration   wait\n",
		"task":      "Usage:\n  waggle task [command]\n",
		"task list": "Usage:\n  waggle task list [flags]\n\nFlags:\n  -o string\n",
		"work":      "Usage:\n  waggle work [flags] -- CMD ARG…\n\nFlags:\n      --concurrency int   slots\n",
	}
	for n := len(words); n > 0; n-- {
		if text, ok := texts[strings.Join(words[:n], " ")]; ok {
			return text, nil
		}
	}
	return root, nil
}
