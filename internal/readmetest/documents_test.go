package readmetest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// moduleDir is the root of the module, seen from this package.
const moduleDir = "../.."

// documents parses the Markdown files at the root and all below docs.
func documents(t *testing.T) []*Document {
	t.Helper()
	root := os.DirFS(moduleDir)
	names, err := fs.Glob(root, "*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(root, "docs", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".md") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var docs []*Document
	for _, name := range names {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := Parse(name, string(text))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
	return docs
}

func TestExamplesCompile(t *testing.T) {
	t.Parallel()
	packages, err := Packages(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	snippets, err := Snippets(documents(t), packages)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Compile(root, t.TempDir(), snippets); err != nil {
		t.Error(err)
	}
}

func TestLinksResolve(t *testing.T) {
	t.Parallel()
	for _, fault := range CheckLinks(os.DirFS(moduleDir), documents(t)) {
		t.Error(fault)
	}
}

func TestCommandsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(moduleDir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	help := waggleHelp(t)
	for _, d := range documents(t) {
		for _, fault := range CheckCommands(d, MakeTargets(string(makefile)), help) {
			t.Error(fault)
		}
	}
}

// waggleHelp returns a function that asks the real command, which it builds
// when it is first asked.
func waggleHelp(t *testing.T) func([]string) (string, error) {
	binary := filepath.Join(t.TempDir(), "waggle")
	build := sync.OnceValue(func() error {
		cmd := exec.Command("go", "build", "-o", binary, "./cmd/waggle")
		cmd.Dir = moduleDir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build ./cmd/waggle: %w\n%s", err, out)
		}
		return nil
	})
	return func(words []string) (string, error) {
		if err := build(); err != nil {
			return "", err
		}
		out, err := exec.Command(binary, append(words, "--help")...).CombinedOutput()
		return string(out), err
	}
}

// TestIndexListsEveryPage holds docs/README.md to its first sentence.
func TestIndexListsEveryPage(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	listed := make(map[string]bool)
	for _, d := range docs {
		if d.Path == "docs/README.md" {
			for _, l := range d.Links {
				listed["docs/"+l.Target] = true
			}
		}
	}
	for _, d := range docs {
		if filepath.Dir(d.Path) == "docs" && d.Path != "docs/README.md" && !listed[d.Path] {
			t.Errorf("docs/README.md does not list %s", d.Path)
		}
	}
}
