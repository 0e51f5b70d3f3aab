package frontdoor

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the comments into aliases_gen.go")

const path = "../../aliases_gen.go"

func TestAliasesShowWhatTheyStandFor(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Aliases(have)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := Load("../../driver")
	if err != nil {
		t.Fatal(err)
	}
	want, err := driver.File(names)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("the comments in aliases_gen.go are not those of package driver (make generate writes them; -want +got):\n%s", diff)
	}
}

// TestGoDocShowsFields asks the tool that readers ask.
func TestGoDocShowsFields(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"Filter":       {"IDs ", "States ", "AnyError ", "Before "},
		"Retention":    {"Completed Keep"},
		"Keep":         {"None ", "Age ", "Count ", "Bytes "},
		"State":        {`Discarded State = "discarded"`},
		"WorkerStatus": {"LeaseEnd ", "Slots "},
	} {
		out, err := exec.Command("go", "doc", "github.com/waggleq/waggle."+name).CombinedOutput()
		if err != nil {
			t.Fatalf("go doc: %v\n%s", err, out)
		}
		shown := strings.Join(strings.Fields(string(out)), " ")
		for _, w := range want {
			if !strings.Contains(shown, w) {
				t.Errorf("go doc waggle.%s shows no %q:\n%s", name, w, out)
			}
		}
	}
}
