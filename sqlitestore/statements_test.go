package sqlitestore

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// A statement that the code names is in sql/*.sql.
func TestStatementsThatTheCodeNamesExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	must(t, err)
	call := regexp.MustCompile(`\.(?:stmt|another)\("([^"]*)"\)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			if _, ok := statements[m[1]]; !ok {
				t.Errorf("%s: there is no statement %q", file, m[1])
			}
		}
	}
}
