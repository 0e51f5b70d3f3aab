package statediagram

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the diagram into the pages that show it")

func TestPagesShowTheTable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"architecture.md", "concepts.md"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkPage(t, "../../docs/"+name)
		})
	}
}

func checkPage(t *testing.T, path string) {
	t.Helper()
	const open, end = "```mermaid\n", "```"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), open)
	if !ok {
		t.Fatalf("%s has no mermaid block", path)
	}
	shown, after, _ := strings.Cut(rest, end)
	if *update {
		if err := os.WriteFile(path, []byte(before+open+Mermaid()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(Mermaid(), shown); diff != "" {
		t.Errorf("the diagram in %s is not the table in driver/state.go (make generate writes it):\n%s", path, diff)
	}
}
