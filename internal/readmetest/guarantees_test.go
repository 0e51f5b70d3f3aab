package readmetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// TestGuaranteesNameTheirTests holds docs/guarantees.md to what it says: each test that it names exists, and each
// promise names one.
func TestGuaranteesNameTheirTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(moduleDir, "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	refs, err := TestRefs(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range CheckTests(os.DirFS(moduleDir), "driver/drivertest", refs) {
		t.Errorf("docs/guarantees.md: %s", fault)
	}
	promises := strings.Split(string(text), "\n## ")[1:]
	for _, section := range promises {
		title, body, _ := strings.Cut(section, "\n")
		if title[0] < '0' || title[0] > '9' {
			continue
		}
		if refs, err := TestRefs(body); err != nil || len(refs) == 0 {
			t.Errorf("docs/guarantees.md: the promise %q names no test", title)
		}
	}
}

func TestCheckTests(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{
		"a/x_test.go":                  {Data: []byte("package a\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) { t.Run(\"one two\", nil) }\n\nfunc (m) TestM() {}\n")},
		"a/testdata/script/talk.txtar": {},
		"b/conformance_test.go":        {Data: []byte("package b\n\nimport \"m/suite\"\n\nfunc TestConformance(t *testing.T) { suite.Run(t) }\n")},
		"c/conformance_test.go":        {Data: []byte("package c\n\nfunc TestConformance(t *testing.T) {}\n")},
		"suite/suite.go":               {Data: []byte("package suite\n\nvar cases = []string{\"leases\"}\n")},
	}
	for text, fault := range map[string]string{
		"`a/x_test.go:TestX`":                            "",
		"`a/x_test.go:TestX/one two`":                    "",
		"`a/x_test.go:TestX/talk`":                       "",
		"`b/conformance_test.go:TestConformance/leases`": "",
		"`a/x_test.go:TestY`":                            "has no function TestY",
		"`a/x_test.go:TestM`":                            "has no function TestM",
		"`a/x_test.go:TestX/three`":                      `no subtest called "three"`,
		"`a/x_test.go:TestX/leases`":                     `no subtest called "leases"`,
		"`a/y_test.go:TestX`":                            "no such file",
		"`*/conformance_test.go:TestConformance/leases`": `no subtest called "leases"`,
		"`a/x_test.go:CheckX`":                           "is written",
	} {
		refs, err := TestRefs(text)
		faults := CheckTests(root, "suite", refs)
		if err != nil {
			faults = []string{err.Error()}
		}
		got := strings.Join(faults, "\n")
		if (fault == "") != (got == "") || !strings.Contains(got, fault) {
			t.Errorf("%s: got %q, want one with %q", text, got, fault)
		}
	}
}
