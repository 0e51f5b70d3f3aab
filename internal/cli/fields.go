package cli

import (
	"fmt"
	"strings"
)

// fieldWriter writes names and values, one pair a line. Empty values are left out.
type fieldWriter struct {
	strings.Builder
	term terminal
}

const fieldWidth = 12 // columns of the names

func (w *fieldWriter) field(name, value string) {
	if value != "" && value != "-" {
		fmt.Fprintf(w, "%s%s\n", w.term.paint(dim, fmt.Sprintf("%-*s", fieldWidth, name)), value)
	}
}
