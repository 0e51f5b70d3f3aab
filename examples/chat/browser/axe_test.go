package browser

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// axe is the script that looks for what keeps people from using a page; npm brings it.
var axe = sync.OnceValues(func() (string, error) {
	path := filepath.Join("node_modules", "axe-core", "axe.min.js")
	if text, err := os.ReadFile(path); err == nil {
		return string(text), nil
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Stderr = os.Stderr
	if err := install.Run(); err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
})

// findings are what axe-core says: how many rules the page keeps, and those that it breaks.
type findings struct {
	Passes     int       `json:"passes"`
	Violations []finding `json:"violations"`
}

// finding is a rule that the page breaks.
type finding struct {
	ID    string   `json:"id"`
	Help  string   `json:"help"`
	Nodes []string `json:"nodes"`
}

// accessible checks the page as it is now, in both shapes and both schemes.
func (w *window) accessible(when string) {
	w.t.Helper()
	script, err := axe()
	if err != nil {
		w.t.Fatalf("axe-core: %v (npm is needed: scripts/setup)", err)
	}
	do(w, chromedp.Evaluate[chromedp.Void](script))
	for _, width := range []int64{360, wide} {
		w.shape(width, high)
		if got := eval[int64](w, `document.documentElement.scrollWidth`); got > width {
			w.t.Errorf("%s: at %d pixels the page is %d wide", when, width, got)
		}
		for _, scheme := range []string{"dark", "light"} {
			w.scheme(scheme)
			found := eval[findings](w, `axe.run().then((r) => ({ passes: r.passes.length, violations: r.violations.map((v) => ({
				id: v.id, help: v.help, nodes: v.nodes.map((n) => n.html.slice(0, 200) + " " + n.failureSummary) })) }))`)
			if found.Passes < 20 {
				w.t.Errorf("%s: axe-core has tried %d rules only", when, found.Passes)
			}
			for _, f := range found.Violations {
				w.t.Errorf("%s, %d pixels, %s: %s (%s)\n%s", when, width, scheme, f.Help, f.ID, strings.Join(f.Nodes[:min(3, len(f.Nodes))], "\n"))
			}
		}
	}
}

// picture takes one for the documents.
func (w *window) picture(name string) {
	w.t.Helper()
	png := do(w, chromedp.CaptureScreenshot())
	dir := *pictures
	if dir == "" {
		dir = w.t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// TestAccessible looks at the page when all is well, with nodes dead and frozen, and with a message that waits.
func TestAccessible(t *testing.T) {
	t.Parallel()
	c := startChat(t)
	w := openWindow(t, "reader", c.at["A1"])
	w.well()
	w.accessible("nothing said yet")
	w.delivered(w.say("Ada", "One line."))
	w.delivered(w.say("Ada", strings.Repeat("many lines\n", 40)))
	for _, fault := range [][2]string{{"W2", "freeze"}, {"A2", "kill"}, {w.master(), "kill"}} {
		if err := c.do(t.Context(), fault[0], fault[1]); err != nil {
			t.Fatal(err)
		}
	}
	w.say("Ada", "Is anybody there?")
	w.is("A2", "dead")
	w.is("W2", "frozen")
	w.accessible("nodes are down")
}
