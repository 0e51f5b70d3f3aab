package deptest

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file of the binary's dependencies")

// moduleDir is the root of the module, seen from this package.
const moduleDir = "../.."

// command is the binary whose dependencies are listed in a golden file.
const command = "./cmd/waggle"

func TestImportRules(t *testing.T) {
	t.Parallel()
	pkgs, err := Load(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range Check(pkgs, Rules) {
		t.Error(fault)
	}
}

func TestCommandDependencies(t *testing.T) {
	t.Parallel()
	var got string
	if _, err := os.Stat(filepath.Join(moduleDir, command)); err == nil {
		mods, err := Modules(moduleDir, command)
		if err != nil {
			t.Fatal(err)
		}
		got = strings.Join(mods, "\n") + "\n"
	} else if !os.IsNotExist(err) {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "cmd-waggle-deps.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is built from these modules:\n%s\nbut %s lists:\n%s\n"+
			"If that is meant, run go test ./internal/deptest -update and say why in docs/decisions/dependencies.md.",
			command, got, golden, want)
	}
}

// TestCheck breaks each rule once, in a module as small as the fault allows.
func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		imports map[string][]string // importer to imported
		tests   map[string][]string // the same for test files
		fault   string              // the beginning of the one fault; empty for none
	}{
		{
			name: "the house as it should be",
			imports: map[string][]string{
				"./driver":            {"context"},
				"./driver/drivertest": {"./driver", "./memstore", "pgregory.net/rapid", "github.com/google/go-cmp/cmp"},
				"./internal/ring":     {"./driver"},
				"./memstore":          {"./driver", "./internal/ring"},
				"./sqlitestore":       {"./driver", "zombiezen.com/go/sqlite/sqlitex"},
				"./internal/runner":   {"./driver"},
				".":                   {"./driver", "./internal/runner"},
				"./waggletest":        {".", "./driver", "./memstore"},
				"./httpapi":           {"."},
				"./stores":            {"./driver", "./memstore", "./sqlitestore"},
				"./internal/cli":      {".", "./stores", "github.com/spf13/cobra"},
				"./cmd/waggle":        {"./internal/cli", "os"},
				"./examples/hello":    {".", "./memstore", "./stores"},
			},
			tests: map[string][]string{
				"./sqlitestore": {"./driver/drivertest", "./memstore", "./sqlitestore"},
				"./memstore":    {"./driver/drivertest"},
			},
		},
		{
			name:    "the contract with a third-party import",
			imports: map[string][]string{"./driver": {"github.com/google/uuid"}},
			fault:   "./driver imports github.com/google/uuid",
		},
		{
			name:    "the contract with an engine",
			imports: map[string][]string{"./driver": {"./memstore"}, "./memstore": nil},
			fault:   "./driver imports ./memstore",
		},
		{
			name:    "the suite with an engine that is not the model",
			imports: map[string][]string{"./driver/drivertest": {"./sqlitestore"}, "./sqlitestore": nil},
			fault:   "./driver/drivertest imports ./sqlitestore",
		},
		{
			name:    "an engine with a client library of another",
			imports: map[string][]string{"./sqlitestore": {"github.com/redis/rueidis"}},
			fault:   "./sqlitestore imports github.com/redis/rueidis",
		},
		{
			name:    "an engine with an internal package that is no leaf",
			imports: map[string][]string{"./memstore": {"./internal/color"}, "./internal/color": {"golang.org/x/term"}},
			fault:   "./memstore imports ./internal/color",
		},
		{
			name:    "an engine's test with another engine",
			imports: map[string][]string{"./sqlitestore": nil, "./redisstore": nil},
			tests:   map[string][]string{"./sqlitestore": {"./redisstore"}},
			fault:   "a test of ./sqlitestore imports ./redisstore",
		},
		{
			name:    "the library with a third-party import that was not decided",
			imports: map[string][]string{".": {"github.com/spf13/cobra"}},
			fault:   ". imports github.com/spf13/cobra",
		},
		{
			name:    "the runner with the library",
			imports: map[string][]string{"./internal/runner": {"."}, ".": nil},
			fault:   "./internal/runner imports .",
		},
		{
			name:    "the test kit with an engine that needs a client",
			imports: map[string][]string{"./waggletest": {"./sqlitestore"}, "./sqlitestore": nil},
			fault:   "./waggletest imports ./sqlitestore",
		},
		{
			name:    "the HTTP API with an engine",
			imports: map[string][]string{"./httpapi": {"./memstore"}, "./memstore": nil},
			fault:   "./httpapi imports ./memstore",
		},
		{
			name:    "the commands with an engine",
			imports: map[string][]string{"./internal/cli": {"./sqlitestore"}, "./sqlitestore": nil},
			fault:   "./internal/cli imports ./sqlitestore",
		},
		{
			name:    "main with more than the commands",
			imports: map[string][]string{"./cmd/waggle": {"./stores"}, "./stores": nil},
			fault:   "./cmd/waggle imports ./stores",
		},
		{
			name:    "an example with an internal package",
			imports: map[string][]string{"./examples/hello": {"./internal/runner"}, "./internal/runner": nil},
			fault:   "./examples/hello imports ./internal/runner",
		},
		{
			name:    "a package nobody gave a rule",
			imports: map[string][]string{"./toolbox": nil},
			fault:   "./toolbox has no rule",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			faults := Check(graph(tt.imports, tt.tests), Rules)
			switch {
			case tt.fault == "" && len(faults) > 0:
				t.Errorf("got faults where all is well: %q", faults)
			case tt.fault != "" && !slices.ContainsFunc(faults, hasPrefix(tt.fault)):
				t.Errorf("got faults %q, want one that begins with %q", faults, tt.fault)
			}
		})
	}
}

// TestCheckFollowsImports has a fault one step away: stores may import an
// engine, the library must not reach it through stores.
func TestCheckFollowsImports(t *testing.T) {
	t.Parallel()
	pkgs := graph(map[string][]string{
		".":             {"./stores"},
		"./stores":      {"./sqlitestore"},
		"./sqlitestore": nil,
	}, nil)
	want := []string{
		". imports ./stores: the library imports no engine",
		". depends on ./sqlitestore through ./stores: the library imports no engine",
	}
	if got := Check(pkgs, Rules); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLoadSeesFaults runs the go command on a module on disk that breaks a rule.
func TestLoadSeesFaults(t *testing.T) {
	t.Parallel()
	dir := writeModule(t, map[string]string{
		"driver/driver.go":        "package driver\n",
		"memstore/memstore.go":    "package memstore\n\nimport _ \"" + Module + "/sqlitestore\"\n",
		"sqlitestore/sqlite.go":   "package sqlitestore\n\nimport _ \"strings\"\n",
		"sqlitestore/too_test.go": "package sqlitestore_test\n\nimport _ \"" + Module + "/redisstore\"\n",
		"redisstore/redis.go":     "package redisstore\n",
	})
	pkgs, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	faults := Check(pkgs, Rules)
	for _, want := range []string{
		"./memstore imports ./sqlitestore",
		"a test of ./sqlitestore imports ./redisstore",
	} {
		if !slices.ContainsFunc(faults, hasPrefix(want)) {
			t.Errorf("got faults %q, want one that begins with %q", faults, want)
		}
	}
}

func TestLoadFails(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string]string
	}{
		{"no packages", nil},
		{"an import that does not exist", map[string]string{
			"driver/driver.go": "package driver\n\nimport _ \"" + Module + "/gone\"\n",
		}},
		{"a file that does not parse", map[string]string{"driver/driver.go": "pakage driver\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if pkgs, err := Load(writeModule(t, tt.files)); err == nil {
				t.Errorf("got %d packages and no error", len(pkgs))
			}
		})
	}
}

func TestModulesFails(t *testing.T) {
	t.Parallel()
	if mods, err := Modules(writeModule(t, nil), command); err == nil {
		t.Errorf("got %q for a command that does not exist, want an error", mods)
	}
}

// graph makes packages of two import lists. A path with neither "./" nor a dot
// is the standard library's.
func graph(imports, tests map[string][]string) map[string]Package {
	pkgs := make(map[string]Package)
	for from, list := range imports {
		pkgs[from] = Package{Path: from, Imports: list, TestImports: tests[from]}
		for _, to := range list {
			if _, ok := imports[to]; !ok && !inModule(to) {
				pkgs[to] = Package{Path: to, Standard: !strings.Contains(to, ".")}
			}
		}
	}
	return pkgs
}

func writeModule(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module "+Module+"\n\ngo 1.26\n")
	for name, content := range files {
		write(name, content)
	}
	return dir
}

func hasPrefix(prefix string) func(string) bool {
	return func(s string) bool { return strings.HasPrefix(s, prefix) }
}
