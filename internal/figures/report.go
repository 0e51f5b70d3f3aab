package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is the outcome of a run.
type report struct {
	Machine  machine `json:"machine"`
	Settings any     `json:"measured"`
	Seconds  int     `json:"seconds"`
	Tasks    int     `json:"tasks"` // each of which has run once
	Rows     []row   `json:"figures"`

	Notes []string `json:"notes,omitzero"`
}

// value is what was measured of a figure; 0 if it was not.
func (r *report) value(id string) float64 {
	for i := range r.Rows {
		if r.Rows[i].ID == id {
			return r.Rows[i].Value
		}
	}
	return 0
}

// missed returns the figures that fell short of their goals.
func (r *report) missed() []string {
	var ids []string
	for _, row := range r.Rows {
		if row.Met != nil && !*row.Met {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(headings, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

var headings = []string{"figure", "goal", "measured", "unit", "spread", "ratio", "met"}

func (r *row) cells() []string {
	ratio, met := "", ""
	if r.Ratio != nil {
		ratio = strconv.FormatFloat(*r.Ratio, 'f', 2, 64) + " ×"
	}
	if r.Met != nil {
		met = map[bool]string{true: "yes", false: "no"}[*r.Met]
	}
	return []string{r.What, r.Goal, number(r.Value), r.Unit, number(r.Low) + " … " + number(r.High), ratio, met}
}

// number writes three digits that count, or all of a whole number, grouped by thousands.
func number(v float64) string {
	if math.Abs(v) < 100 {
		digits := 2
		if math.Abs(v) >= 10 {
			digits = 1
		}
		text := strconv.FormatFloat(v, 'f', digits, 64)
		return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	text := strconv.FormatInt(int64(math.Round(v)), 10)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + " " + text[at:]
	}
	return text
}

// table writes the figures as a table of a page, with what they come to.
func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| " + strings.Join(headings, " | ") + " |\n|---|--:|--:|---|--:|--:|---|\n")
	for _, row := range r.Rows {
		cells := row.cells()
		if row.Met != nil && !*row.Met {
			cells[len(cells)-1] = "**no**"
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n" + r.summary() + "\n")
	for _, note := range r.Notes {
		b.WriteString("\n" + note + "\n")
	}
	return b.String()
}

func (r *report) summary() string {
	text := "Every goal was met."
	if missed := r.missed(); len(missed) > 0 {
		text = fmt.Sprintf("Goals missed: %d (%s).", len(missed), strings.Join(missed, ", "))
	}
	return fmt.Sprintf("%s %s tasks were counted: each was run once.", text, number(float64(r.Tasks)))
}
