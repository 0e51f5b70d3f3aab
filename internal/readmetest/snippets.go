package readmetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// virtualDir is where the examples seem to be: inside the module, so that they
// see its packages and its dependencies. Nothing is written there.
const virtualDir = "internal/readmetest/snippets"

// A Snippet is one Go example, made into a file that compiles on its own.
type Snippet struct {
	Name   string // of its package's directory
	Source string // with line directives that lead to the document
}

// Snippets makes a file of each Go block of the documents. Packages maps the
// package names that a fragment may use without importing them to their paths.
//
// A block that begins with a package clause is left as it is. Any other block
// is a fragment: imports it may begin with, then either declarations or the
// statements of a function. That function's parameters and results are what
// the comment above the block says, <!-- go: (ctx context.Context) error -->.
func Snippets(docs []*Document, packages map[string]string) ([]Snippet, error) {
	var snippets []Snippet
	var errs []error
	for _, d := range docs {
		for _, b := range d.Blocks {
			if b.Lang != "go" {
				continue
			}
			source, err := complete(d.Path, b, packages)
			errs = append(errs, err)
			snippets = append(snippets, Snippet{Name: fmt.Sprintf("s%d", len(snippets)), Source: source})
		}
	}
	return snippets, errors.Join(errs...)
}

var importSpec = regexp.MustCompile(`(?m)\A\s*(?:(?://.*\n|\s)*import\s*(?:\((?s:.*?)\)|[^\n(]*"[^"]*")[^\n]*\n)*`)

func complete(file string, b Block, packages map[string]string) (string, error) {
	at := func(line int) string { return fmt.Sprintf("//line %s:%d\n", file, line) }
	fset := token.NewFileSet()
	whole := at(b.Line) + b.Text
	if _, err := parser.ParseFile(fset, "", whole, parser.PackageClauseOnly); err == nil {
		return whole, nil
	}

	head := importSpec.FindString(b.Text)
	body := b.Text[len(head):]
	bodyLine := b.Line + strings.Count(head, "\n")
	result := at(b.Line) + head + at(bodyLine) + body
	parsed, err := parser.ParseFile(fset, "", "package p\n"+result, parser.SkipObjectResolution)
	if err != nil || b.Signature != "" {
		function, err := wrap(fset, at(b.Line)+head, cmp.Or(b.Signature, "()"), at(bodyLine)+body)
		if err != nil {
			return "", err
		}
		result = function
		parsed, err = parser.ParseFile(fset, "", "package p\n"+result, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
	}
	return "package p\n" + imports(parsed, packages) + result, nil
}

// wrap makes a function of statements. One with results need not end with a
// return, so that an example can stop where it has said enough.
func wrap(fset *token.FileSet, head, sig, body string) (string, error) {
	open, shut := head+"func _"+sig+" {\n"+body, "\n}\n"
	parsed, err := parser.ParseFile(fset, "", "package p\n"+open+shut, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	function, ok := parsed.Decls[len(parsed.Decls)-1].(*ast.FuncDecl)
	if !ok || function.Type.Results == nil {
		return open + shut, nil
	}
	if list := function.Body.List; len(list) > 0 {
		if _, returns := list[len(list)-1].(*ast.ReturnStmt); returns {
			return open + shut, nil
		}
	}
	return open + "\npanic(\"the example ends here\")" + shut, nil
}

// imports returns import declarations for the known packages that the file
// uses and neither imports nor hides behind a name of its own.
func imports(file *ast.File, packages map[string]string) string {
	used, own := names(file)
	for _, spec := range file.Imports {
		own[path.Base(strings.Trim(spec.Path.Value, `"`))] = true
		if spec.Name != nil {
			own[spec.Name.Name] = true
		}
	}
	var decls strings.Builder
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if importPath, ok := packages[name]; ok && !own[name] {
			fmt.Fprintf(&decls, "import %s %q\n", name, importPath)
		}
	}
	return decls.String()
}

// names returns the names that stand before a dot in the file, and those that
// it declares for variables, constants, parameters and fields.
func names(file *ast.File) (used, own map[string]bool) {
	used, own = make(map[string]bool), make(map[string]bool)
	add := func(set map[string]bool, exprs ...ast.Expr) {
		for _, e := range exprs {
			if id, ok := e.(*ast.Ident); ok {
				set[id.Name] = true
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			add(used, n.X)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				add(own, n.Lhs...)
			}
		case *ast.RangeStmt:
			add(own, n.Key, n.Value)
		case *ast.ValueSpec:
			for _, id := range n.Names {
				add(own, id)
			}
		case *ast.Field:
			for _, id := range n.Names {
				add(own, id)
			}
		}
		return true
	})
	return used, own
}

// Compile builds the snippets with one go build in the module at root, and
// returns what the compiler says about them as the error. Nothing in root is changed:
// an overlay puts the files there for this one command.
func Compile(root, temp string, snippets []Snippet) error {
	if len(snippets) == 0 {
		return nil
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	args := []string{"build", "-o", os.DevNull, "-overlay=" + filepath.Join(temp, "overlay.json")}
	for _, s := range snippets {
		file := filepath.Join(temp, s.Name+".go")
		if err := os.WriteFile(file, []byte(s.Source), 0o644); err != nil {
			return err
		}
		overlay.Replace[filepath.Join(root, virtualDir, s.Name, "snippet.go")] = file
		args = append(args, "./"+path.Join(virtualDir, s.Name))
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "overlay.json"), data, 0o644); err != nil {
		return err
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build of the examples: %w\n%s", err, out)
	}
	return nil
}

// Packages maps the names of the standard library's packages, and of the
// module's public ones in the module at root, to their import paths. A name
// that two packages of the standard library share is left out.
func Packages(root string) (map[string]string, error) {
	cmd := exec.Command("go", "list", "-f", "{{.Name}} {{.ImportPath}} {{.Standard}}", "std", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	packages, shared := make(map[string]string), make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, importPath, standard := fields[0], fields[1], fields[2] == "true"
		if name == "main" || strings.HasPrefix(importPath, "vendor/") ||
			slices.Contains(strings.Split(importPath, "/"), "internal") {
			continue
		}
		_, taken := packages[name]
		shared[name] = taken && standard
		packages[name] = importPath
	}
	maps.DeleteFunc(packages, func(name, _ string) bool { return shared[name] })
	return packages, nil
}
