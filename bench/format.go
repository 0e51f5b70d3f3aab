package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// none is what a table shows where there is no figure.
const none = "–"

// short writes x with three significant digits and thin groups of three: 12 300, 4.56, 0.789.
func short(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return none
	}
	if x == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	unit := math.Pow(10, float64(digits))
	rounded := math.Round(x*unit) / unit
	if math.Abs(rounded) >= 100 {
		return grouped(int64(rounded))
	}
	return strconv.FormatFloat(rounded, 'f', max(2-int(math.Floor(math.Log10(math.Abs(rounded)))), 0), 64)
}

// grouped writes n in groups of three digits, with narrow no-break spaces between.
func grouped(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	digits := strconv.FormatInt(n, 10)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return sign + strings.Join(append([]string{digits}, groups...), "\u202f")
}

// cell writes a figure with its spread.
func (f figure) cell() string {
	switch {
	case f.samples == 0:
		return none
	case f.samples == 1:
		return short(f.median)
	}
	return fmt.Sprintf("**%s** (%s–%s)", short(f.median), short(f.low), short(f.high))
}

// times writes a ratio: 12 ×.
func times(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return none
	}
	if x < 9.95 {
		return strconv.FormatFloat(x, 'f', max(1, min(2, 2-int(math.Floor(math.Log10(max(x, 0.01)))))), 64) + " ×"
	}
	return short(x) + " ×"
}
