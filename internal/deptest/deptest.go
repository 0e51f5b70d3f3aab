// Package deptest holds the import rules of the module: which of its packages
// may import which others, and which third-party modules. The rules are the
// table in rules.go, and the package's tests hold the module to it.
//
// Imports of the standard library are always allowed. A package without a rule
// is a fault, so that a new one gets its place in the table on purpose.
package deptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// Module is the path of the module whose rules these are.
const Module = "github.com/waggleq/waggle"

// A Package is what the rules need to know of one package. Import paths inside
// the module are written as the go command takes them: "./driver", and "." for
// the root package.
type Package struct {
	Path        string
	Standard    bool
	Imports     []string // imports of the package itself
	TestImports []string // imports of its tests, in the package and beside it
}

// Load lists the packages of the module in dir and all they depend on, by
// import path. It fails when the go command does, or finds no package.
func Load(dir string) (map[string]Package, error) {
	out, err := goCommand(dir, "list", "-deps",
		"-json=ImportPath,Standard,Imports,TestImports,XTestImports", "./...")
	if err != nil {
		return nil, err
	}
	pkgs, err := decode(out)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(paths(pkgs), inModule) {
		return nil, fmt.Errorf("deptest: no package of %s in %s", Module, dir)
	}
	return pkgs, nil
}

func decode(out []byte) (map[string]Package, error) {
	pkgs := make(map[string]Package)
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p struct {
			ImportPath   string
			Standard     bool
			Imports      []string
			TestImports  []string
			XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("deptest: read what go list printed: %w", err)
		}
		rel := relative(p.ImportPath)
		pkgs[rel] = Package{
			Path:        rel,
			Standard:    p.Standard,
			Imports:     relatives(p.Imports),
			TestImports: relatives(p.TestImports, p.XTestImports),
		}
	}
}

// Modules lists the paths, in order and without versions, of the third-party
// modules that the package pkg of the module in dir is built from.
func Modules(dir, pkg string) ([]string, error) {
	out, err := goCommand(dir, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg)
	if err != nil {
		return nil, err
	}
	mods := strings.Fields(string(out))
	slices.Sort(mods)
	mods = slices.Compact(mods)
	return slices.DeleteFunc(mods, func(m string) bool { return m == Module }), nil
}

func goCommand(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("deptest: go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// Check returns one sentence for each import that the rules forbid, in order.
func Check(pkgs map[string]Package, rules []Rule) []string {
	var faults []string
	for _, from := range paths(pkgs) {
		if !inModule(from) {
			continue
		}
		rule, ok := ruleOf(rules, from)
		if !ok {
			faults = append(faults, fmt.Sprintf("%s has no rule: give it a line in internal/deptest/rules.go", from))
			continue
		}
		c := checker{pkgs: pkgs, from: from, rule: rule}
		faults = append(faults, c.direct()...)
		faults = append(faults, c.indirect()...)
		faults = append(faults, c.tests()...)
	}
	return faults
}

// A checker holds one package against its rule.
type checker struct {
	pkgs map[string]Package
	from string
	rule Rule
}

func (c checker) direct() []string {
	var faults []string
	for _, to := range c.pkgs[c.from].Imports {
		if c.pkgs[to].Standard || to == "C" || c.allowed(to) && !matchAny(c.rule.Never, to) {
			continue
		}
		faults = append(faults, fmt.Sprintf("%s imports %s: %s", c.from, to, c.rule.Why))
	}
	return faults
}

func (c checker) allowed(to string) bool {
	for _, pattern := range c.rule.May {
		switch pattern {
		case leaves:
			if match("./internal/...", to) && c.isLeaf(to) {
				return true
			}
		case thirdParty:
			if !inModule(to) {
				return true
			}
		default:
			if match(pattern, to) {
				return true
			}
		}
	}
	return false
}

// isLeaf reports whether all that pkg needs is driver, the standard library and
// internal packages of the same kind.
func (c checker) isLeaf(pkg string) bool {
	for dep := range c.reached(pkg) {
		if !c.pkgs[dep].Standard && dep != "./driver" && !match("./internal/...", dep) {
			return false
		}
	}
	return true
}

func (c checker) indirect() []string {
	var faults []string
	reached := c.reached(c.from)
	for _, to := range paths(c.pkgs) {
		via, ok := reached[to]
		if ok && via != c.from && matchAny(c.rule.Never, to) {
			faults = append(faults, fmt.Sprintf("%s depends on %s through %s: %s", c.from, to, via, c.rule.Why))
		}
	}
	return faults
}

// reached returns all that pkg depends on, each with the package that imports it.
func (c checker) reached(pkg string) map[string]string {
	via := make(map[string]string)
	todo := []string{pkg}
	for len(todo) > 0 {
		from := todo[0]
		todo = todo[1:]
		for _, to := range c.pkgs[from].Imports {
			if _, seen := via[to]; !seen {
				via[to] = from
				todo = append(todo, to)
			}
		}
	}
	return via
}

func (c checker) tests() []string {
	var faults []string
	for _, to := range c.pkgs[c.from].TestImports {
		if to != c.from && matchAny(c.rule.TestsNever, to) {
			faults = append(faults, fmt.Sprintf("a test of %s imports %s: %s", c.from, to, c.rule.Why))
		}
	}
	return faults
}

// ruleOf returns the first rule for the package.
func ruleOf(rules []Rule, pkg string) (Rule, bool) {
	i := slices.IndexFunc(rules, func(r Rule) bool { return match(r.Of, pkg) })
	if i < 0 {
		return Rule{}, false
	}
	return rules[i], true
}

// match reports whether the pattern names the package: "a/..." is a and all
// below it, any other pattern is one package.
func match(pattern, pkg string) bool {
	prefix, tree := strings.CutSuffix(pattern, "/...")
	return pkg == prefix || tree && strings.HasPrefix(pkg, prefix+"/")
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

// relative shortens an import path of the module to one relative to it.
func relative(importPath string) string {
	if importPath == Module {
		return "."
	}
	if rest, ok := strings.CutPrefix(importPath, Module+"/"); ok {
		return "./" + rest
	}
	return importPath
}

func inModule(pkg string) bool { return pkg == "." || strings.HasPrefix(pkg, "./") }

// paths returns the import paths in order, so that faults are reported in one.
func paths(pkgs map[string]Package) []string { return slices.Sorted(maps.Keys(pkgs)) }

func relatives(lists ...[]string) []string {
	var rel []string
	for _, importPath := range slices.Concat(lists...) {
		rel = append(rel, relative(importPath))
	}
	return rel
}
