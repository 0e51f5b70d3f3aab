package sqlitestore

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed sql
var sqlFiles embed.FS

// statements maps the names in sql/*.sql to their texts.
var statements = mustLoadStatements(sqlFiles)

func mustLoadStatements(files fs.FS) map[string]string {
	all, err := loadStatements(files)
	if err != nil {
		panic(err) // the files are part of the program, and a test loads them
	}
	return all
}

// loadStatements reads sql/*.sql: every statement stands under a line "-- name: x" and ends at the next such line.
func loadStatements(files fs.FS) (map[string]string, error) {
	const mark = "-- name: "
	names, err := fs.Glob(files, "sql/*.sql")
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: list statements: %w", err)
	}
	all := make(map[string]string)
	for _, file := range names {
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, fmt.Errorf("sqlitestore: read statements: %w", err)
		}
		parts := strings.Split("\n"+string(text), "\n"+mark)
		for _, part := range parts[1:] {
			name, body, _ := strings.Cut(part, "\n")
			if _, twice := all[name]; twice {
				return nil, fmt.Errorf("sqlitestore: statement %q is defined twice", name)
			}
			all[name] = strings.TrimSuffix(strings.TrimSpace(withoutComments(body)), ";")
		}
	}
	return all, nil
}

func withoutComments(text string) string {
	lines := strings.Split(text, "\n")
	kept := lines[:0]
	for _, l := range lines {
		if !strings.HasPrefix(strings.TrimSpace(l), "--") {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, "\n")
}
