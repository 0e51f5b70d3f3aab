package readmetest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// scenarioRow is a row of the table of scenarios: number, what, engines, what holds it.
var scenarioRow = regexp.MustCompile(`^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$`)

// scenarioNumbers are the rows that docs/robustness.md must have.
var scenarioNumbers = slices.Concat(numbers(1, 38), numbers(43, 45), numbers(56, 59))

func numbers(from, to int) []int {
	var list []int
	for n := from; n <= to; n++ {
		list = append(list, n)
	}
	return list
}

// TestScenariosNameTheirTests holds the table of scenarios in docs/robustness.md to what it says: every scenario has
// its row, in order, and each row names tests that exist, or says why there is none.
func TestScenariosNameTheirTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(moduleDir, "docs", "robustness.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range checkScenarios(string(text), scenarioNumbers) {
		t.Errorf("docs/robustness.md: %s", fault)
	}
	refs, err := TestRefs(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range CheckTests(os.DirFS(moduleDir), "driver/drivertest", refs) {
		t.Errorf("docs/robustness.md: %s", fault)
	}
}

// checkScenarios returns one sentence for each thing that is wrong with the table.
func checkScenarios(text string, want []int) []string {
	var faults []string
	var got []int
	for i, line := range strings.Split(text, "\n") {
		m := scenarioRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return append(faults, err.Error())
		}
		got = append(got, n)
		refs, err := TestRefs(m[4])
		switch {
		case err != nil:
			faults = append(faults, fmt.Sprintf("line %d: %v", i+1, err))
		case len(refs) == 0 && !strings.HasPrefix(m[4], "not yet: "):
			faults = append(faults, fmt.Sprintf("line %d: scenario %d names no test and does not say `not yet: ` and why", i+1, n))
		}
	}
	if !slices.Equal(got, want) {
		faults = append(faults, fmt.Sprintf("the table has the scenarios %v, want %v", got, want))
	}
	return faults
}

func TestCheckScenarios(t *testing.T) {
	t.Parallel()
	const (
		held    = "| 1 | what | all | `a/x_test.go:TestX` |\n"
		reason  = "| 2 | what | all | not yet: no such thing exists |\n"
		nothing = "| 2 | what | all | someone looked |\n"
	)
	for text, want := range map[string]string{
		held + reason:                           "",
		reason + held:                           "has the scenarios [2 1]",
		held:                                    "has the scenarios [1]",
		held + nothing:                          "scenario 2 names no test",
		held + "| 2 | w | all | `x_test.go:` |": "a test is written",
	} {
		got := strings.Join(checkScenarios(text, []int{1, 2}), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want one with %q", text, got, want)
		}
	}
}
