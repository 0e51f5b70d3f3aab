package statediagram

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the diagram into docs/architecture.md")

func TestArchitectureShowsTheTable(t *testing.T) {
	t.Parallel()
	const path, open, end = "../../docs/architecture.md", "```mermaid\n", "```"
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
		t.Errorf("the diagram in docs/architecture.md is not the table in driver/state.go (make generate writes it):\n%s", diff)
	}
}
