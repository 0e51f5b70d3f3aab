package main

import (
	"math"
	"slices"
)

// median returns the middle of xs, or the mean of the two middle ones. NaN for none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile returns the smallest x of xs that at least p percent of xs do not exceed (nearest rank). NaN for none.
func percentile(xs []float64, p float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	rank := int(math.Ceil(p / 100 * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// figure is a median with its spread.
type figure struct {
	median, low, high float64
	samples           int
}

// summarize returns the median, the least and the greatest of xs.
func summarize(xs []float64) figure {
	if len(xs) == 0 {
		return figure{median: math.NaN(), low: math.NaN(), high: math.NaN()}
	}
	return figure{median: median(xs), low: slices.Min(xs), high: slices.Max(xs), samples: len(xs)}
}

// roundTasks rounds n down to 1, 2 or 5 times a power of ten and keeps it within low and high.
func roundTasks(n float64, low, high int) int {
	switch {
	case n <= float64(low):
		return low
	case n >= float64(high):
		return high
	}
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, step := range []float64{5, 2, 1} {
		if n >= step*unit {
			return min(max(int(step*unit), low), high)
		}
	}
	return low
}
