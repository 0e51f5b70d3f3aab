package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestMigratingCompiles compiles the programs for other queues that docs/migrating.md shows beside Waggle's: this module
// depends on those queues already.
func TestMigratingCompiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```golang\n(.*?)\n```").FindAllSubmatch(text, -1)
	if len(blocks) < 2 {
		t.Fatalf("the page has %d programs, want those for asynq and River", len(blocks))
	}
	dir := t.TempDir()
	for i, b := range blocks {
		file := filepath.Join(dir, fmt.Sprintf("program%d.go", i))
		if err := os.WriteFile(file, append(b[1], '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
			t.Errorf("program %d: %v\n%s", i+1, err, out)
		}
	}
}
