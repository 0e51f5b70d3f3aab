package readmetest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A TestRef is a test that a document names, as `path_test.go:TestName/subtest`. The path is relative to the module's
// root and may be a pattern of package path; then each file that it matches has the test.
type TestRef struct {
	Line int
	Path string
	Name string   // of the function
	Sub  []string // the names of the subtests, from the outside in
}

var (
	testRef  = regexp.MustCompile("`([A-Za-z0-9_*./-]+_test\\.go):((?:Test|Fuzz|Example)\\w*)((?:/[^`]+)?)`")
	backtick = regexp.MustCompile("`[^`]*_test\\.go:[^`]*`")
)

// TestRefs returns the tests that a Markdown text names. What looks like one and can't be read is an error.
func TestRefs(text string) ([]TestRef, error) {
	var refs []TestRef
	for i, line := range strings.Split(text, "\n") {
		found := testRef.FindAllStringSubmatch(line, -1)
		if n := len(backtick.FindAllString(line, -1)); n != len(found) {
			return nil, fmt.Errorf("line %d: a test is written `path_test.go:TestName/subtest`", i+1)
		}
		for _, m := range found {
			ref := TestRef{Line: i + 1, Path: m[1], Name: m[2]}
			if m[3] != "" {
				ref.Sub = strings.Split(m[3][1:], "/")
			}
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// CheckTests returns one sentence for each reference to a test that is not in the sources of root. A subtest counts as
// there if its name is a text in the sources of its package, or the name of a script of its package; the subtests of
// a conformance test are those of suite, the directory that holds them.
func CheckTests(root fs.FS, suite string, refs []TestRef) []string {
	c := &testChecker{root: root, suite: suite, packages: make(map[string]*testPackage)}
	var faults []string
	for _, r := range refs {
		if err := c.check(r); err != nil {
			faults = append(faults, fmt.Sprintf("line %d: %s: %v", r.Line, r.Path, err))
		}
	}
	return faults
}

// testChecker keeps the packages it has read.
type testChecker struct {
	root     fs.FS
	suite    string
	packages map[string]*testPackage
}

// testPackage is what has to be known of a directory's sources.
type testPackage struct {
	funcs   map[string]map[string]bool // file → functions
	imports map[string][]string        // file → packages
	texts   map[string]bool            // string literals, and names of scripts
}

func (c *testChecker) check(r TestRef) error {
	files, err := fs.Glob(c.root, r.Path)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no such file")
	}
	for _, file := range files {
		if err := c.checkFile(file, r); err != nil {
			return err
		}
	}
	return nil
}

func (c *testChecker) checkFile(file string, r TestRef) error {
	p, err := c.read(path.Dir(file))
	if err != nil {
		return err
	}
	if !p.funcs[file][r.Name] {
		return fmt.Errorf("%s has no function %s", file, r.Name)
	}
	runsSuite := slices.ContainsFunc(p.imports[file], func(i string) bool { return strings.HasSuffix(i, "/"+c.suite) })
	for _, name := range r.Sub {
		known := p.texts[name]
		if runsSuite && !known {
			s, err := c.read(c.suite)
			if err != nil {
				return err
			}
			known = s.texts[name]
		}
		if !known {
			return fmt.Errorf("%s has no subtest called %q", r.Name, name)
		}
	}
	return nil
}

func (c *testChecker) read(dir string) (*testPackage, error) {
	if p := c.packages[dir]; p != nil {
		return p, nil
	}
	p := &testPackage{funcs: make(map[string]map[string]bool), imports: make(map[string][]string), texts: make(map[string]bool)}
	names, err := fs.Glob(c.root, path.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if dir != c.suite && !strings.HasSuffix(name, "_test.go") {
			continue
		}
		if err := p.add(c.root, name); err != nil {
			return nil, err
		}
	}
	scripts, err := fs.Glob(c.root, path.Join(dir, "testdata/script/*.txtar"))
	if err != nil {
		return nil, err
	}
	for _, s := range scripts {
		p.texts[strings.TrimSuffix(path.Base(s), ".txtar")] = true
	}
	c.packages[dir] = p
	return p, nil
}

func (p *testPackage) add(root fs.FS, name string) error {
	src, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p.funcs[name] = make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			p.funcs[name][n.Name.Name] = n.Recv == nil
		case *ast.ImportSpec:
			if text, err := strconv.Unquote(n.Path.Value); err == nil {
				p.imports[name] = append(p.imports[name], text)
			}
			return false
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				p.texts[text] = true
			}
		}
		return true
	})
	return nil
}
