package main

import (
	"fmt"
	"slices"
)

// figure is one of the promises, or something to hold it against.
type figure struct {
	id    string
	what  string
	unit  string
	goal  limit
	ratio limit  // of the ratio to the figure beside
	of    string // the id of the figure that the ratio is to; empty: none
	// pool is the percentile of all samples of all rounds that counts; 0: the median of the rounds' values. The spread is
	// that of the rounds in both cases.
	pool float64
	// worst has the largest value count instead of the median.
	worst bool
}

// limit is a goal: at least or at most so much; the zero value is none.
type limit struct {
	sign  string
	value float64
}

func atLeast(v float64) limit { return limit{"≥", v} }
func atMost(v float64) limit  { return limit{"≤", v} }

func (l limit) met(v float64) bool {
	switch l.sign {
	case "≥":
		return v >= l.value
	case "≤":
		return v <= l.value
	}
	return true
}

func (l limit) String() string {
	if l.sign == "" {
		return ""
	}
	return l.sign + " " + number(l.value)
}

// board collects what is measured.
type board struct {
	figures []figure
	samples map[string][][]float64 // by figure, by round
	tasks   int                    // that were counted
	backlog int
	due     int
	notes   []string // sentences for the report
}

func newBoard(figures []figure) *board {
	return &board{figures: figures, samples: make(map[string][][]float64)}
}

// add notes the samples of one round.
func (b *board) add(id string, samples ...float64) {
	b.samples[id] = append(b.samples[id], samples)
}

// row is a figure with what was measured.
type row struct {
	ID      string   `json:"id"`
	What    string   `json:"figure"`
	Unit    string   `json:"unit"`
	Goal    string   `json:"goal,omitzero"`
	Value   float64  `json:"measured"`
	Low     float64  `json:"low"` // of the rounds
	High    float64  `json:"high"`
	Samples int      `json:"samples"`
	Ratio   *float64 `json:"ratio,omitzero"`
	Of      string   `json:"ratio_to,omitzero"`
	Met     *bool    `json:"met,omitzero"` // only of a figure with a goal
}

func (b *board) rows() []row {
	var rows []row
	for i := range b.figures {
		if f := &b.figures[i]; len(b.samples[f.id]) > 0 {
			rows = append(rows, b.row(f))
		}
	}
	return rows
}

func (b *board) row(f *figure) row {
	rounds := b.samples[f.id]
	all, values := slices.Concat(rounds...), f.perRound(rounds)
	r := row{ID: f.id, What: f.what, Unit: f.unit, Goal: f.goal.String(), Low: slices.Min(values), High: slices.Max(values), Samples: len(all)}
	switch f.id {
	case deep:
		r.What = fmt.Sprintf(f.what, number(float64(b.backlog)))
	case dueAll:
		r.What = fmt.Sprintf(f.what, number(float64(b.due)))
	}
	switch {
	case f.worst:
		r.Value = r.High
	case f.pool > 0:
		r.Value = percentile(all, f.pool)
	default:
		r.Value = percentile(values, 0.5)
	}
	met := f.goal.met(r.Value)
	if f.of != "" && len(b.samples[f.of]) == len(rounds) {
		ratio := b.ratio(f)
		r.Ratio, r.Of = &ratio, f.of
		met = met && f.ratio.met(ratio)
	}
	if f.ratio != (limit{}) {
		r.Goal = joinGoals(r.Goal, f.ratio.String()+" ×")
	}
	if r.Goal != "" {
		r.Met = &met
	}
	return r
}

func joinGoals(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// ratio is the median of the rounds' ratios: what a round had to bear, both its halves had.
func (b *board) ratio(f *figure) float64 {
	mine, other := f.perRound(b.samples[f.id]), f.perRound(b.samples[f.of])
	ratios := make([]float64, len(mine))
	for i := range mine {
		ratios[i] = mine[i] / other[i]
	}
	return percentile(ratios, 0.5)
}

// perRound returns the value of each round.
func (f *figure) perRound(rounds [][]float64) []float64 {
	values := make([]float64, len(rounds))
	for i, samples := range rounds {
		switch {
		case f.worst:
			values[i] = slices.Max(samples)
		case f.pool > 0:
			values[i] = percentile(samples, f.pool)
		default:
			values[i] = percentile(samples, 0.5)
		}
	}
	return values
}

// percentile returns the smallest sample that at least this share of all samples does not exceed; of an even number of
// samples, the median is the mean of the two in the middle.
func percentile(samples []float64, share float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	if share == 0.5 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[min(int(share*float64(n)), n-1)]
}
