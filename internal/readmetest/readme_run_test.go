package readmetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeProgramRuns does what a newcomer does: it pastes the README's first
// program into an empty module, builds it and runs it to its end.
func TestReadmeProgramRuns(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write("main.go", []byte(firstProgram(t, filepath.Join(root, "README.md"))))
	write("go.sum", sums)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		// The module's dependencies are in the cache already; nothing is fetched.
		cmd.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off", "GOFLAGS=-mod=mod -p=1", "GOTOOLCHAIN=local")
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
		}
		return stdout.String()
	}
	const module = "github.com/waggleq/waggle"
	run("go", "mod", "init", "example.com/pasted")
	run("go", "mod", "edit", "-require="+module+"@v0.0.0", "-replace="+module+"="+root)
	run("go", "build", "-o", "pasted", ".")
	for range 2 { // the second time there is a queue already
		if got, want := run("./pasted"), "welcome 7\n"; got != want {
			t.Errorf("the program prints %q, want %q", got, want)
		}
	}
}

// firstProgram returns the first Go block of a document that begins with
// package main.
func firstProgram(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Parse(filepath.Base(file), string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range doc.Blocks {
		if b.Lang == "go" && strings.HasPrefix(b.Text, "package main\n") {
			return b.Text
		}
	}
	t.Fatalf("%s has no Go block that begins with package main", file)
	return ""
}
