package redisstore

import (
	"fmt"
	"testing"
)

// TestPlan divides claims among shards: a later queue gets what the earlier ones leave, and no more shards are asked than
// it takes.
func TestPlan(t *testing.T) {
	t.Parallel()
	hi, lo := []int{3, 0, 2, 0}, []int{9, 5, 0, 9}
	for _, c := range []struct {
		queues []string
		want   int
		first  int
		urgent []urgency
		plan   string
	}{
		{[]string{"hi", "lo"}, 2, 0, nil, "[{0 [hi] 2}]"},
		{[]string{"hi", "lo"}, 2, 1, nil, "[{2 [hi] 2}]"},
		{[]string{"hi", "lo"}, 5, 0, nil, "[{0 [hi] 3} {2 [hi] 2}]"},
		{[]string{"hi", "lo"}, 9, 1, nil, "[{2 [hi] 2} {0 [hi] 3} {1 [hi lo] 4}]"},
		{[]string{"lo", "hi"}, 9, 1, nil, "[{3 [lo] 9}]"},
		{[]string{"none", "hi", "lo"}, 100, 0, nil, "[{0 [none hi lo] 12} {2 [none hi] 2} {1 [none hi lo] 5} {3 [none hi lo] 9}]"},
		{[]string{"none"}, 1, 0, nil, "[]"},
		{[]string{"lo"}, 9, 0, []urgency{101, 51, 101, 101}, "[{1 [lo] 5} {0 [lo] 4}]"},
	} {
		st := &standing{of: map[string][]int{"hi": append([]int(nil), hi...), "lo": append([]int(nil), lo...)}}
		if c.urgent == nil {
			c.urgent = make([]urgency, 4)
		}
		if got := fmt.Sprint(st.plan(c.queues, c.want, c.first, c.urgent)); got != c.plan {
			t.Errorf("%d from %v, beginning with shard %d: got %s, want %s", c.want, c.queues, c.first, got, c.plan)
		}
	}
}
