package redisstore

import (
	"testing"
	"time"
)

// TestSoleDue: a worker asks one shard when its task is due, unless another has one at about the same time.
func TestSoleDue(t *testing.T) {
	t.Parallel()
	at := func(ms ...int) []time.Time {
		times := make([]time.Time, len(ms))
		for i, n := range ms {
			if n != 0 {
				times[i] = time.UnixMilli(int64(1000 + n))
			}
		}
		return times
	}
	for _, c := range []struct {
		dues []time.Time
		want int
	}{
		{nil, -1}, {at(0, 0), -1}, {at(0, 7), 1}, {at(30, 7, 0), 1}, {at(7, 30), 0}, {at(7, 9), -1}, {at(30, 9, 7), -1}, {at(7, 7), -1},
	} {
		if got := soleDue(c.dues); got != c.want {
			t.Errorf("%v: %d, want %d", c.dues, got, c.want)
		}
	}
}
