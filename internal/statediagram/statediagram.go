// Package statediagram draws the table of states in package driver, so that the documentation can't drift from it.
package statediagram

//go:generate go test . -run TestPagesShowTheTable -update

import (
	"strings"

	"github.com/waggleq/waggle/driver"
)

// Mermaid returns the diagram of driver.Moves in Mermaid's notation. Moves between the same two states are one arrow.
func Mermaid() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, m := range driver.Moves {
		from := string(m.From)
		if from == "" {
			from = "[*]"
		}
		b.WriteString("    " + from + " --> " + string(m.To) + " : " + m.By + "\n")
	}
	return b.String()
}
