package check_test

import (
	"testing"

	"github.com/waggleq/waggle/examples/chat/check"
)

// sight is a message that a user sees.
type sight struct {
	number int64
	id     string
	text   string
}

// history is one in which a and b were accepted and c had no answer.
func history(users ...[]sight) *check.History {
	h := check.NewHistory()
	for _, id := range []string{"a", "b", "c"} {
		h.Sent(id, "Ada", id)
	}
	h.Accepted("a")
	h.Accepted("b")
	for i, sights := range users {
		user := string(rune('A' + i))
		h.Joined(user)
		for _, s := range sights {
			h.Saw(user, s.number, s.id, "Ada", s.text)
		}
	}
	return h
}

var (
	a1 = sight{1, "a", "a"}
	b2 = sight{2, "b", "b"}
)

// Every fault that a chat could have is found, and nothing where there is none.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		users []([]sight)
		want  check.Report
	}{
		"well":                         {[][]sight{{a1, b2}, {a1, b2}}, check.Report{Delivered: 2}},
		"one without answer came":      {[][]sight{{a1, b2, {3, "c", "c"}}, {a1, b2}}, check.Report{Delivered: 2}},
		"nobody there":                 {nil, check.Report{}},
		"lost for one":                 {[][]sight{{a1, b2}, {a1}}, check.Report{Delivered: 1, Lost: 1}},
		"lost for all, counts once":    {[][]sight{{a1}, {a1}}, check.Report{Delivered: 1, Lost: 1}},
		"doubled":                      {[][]sight{{a1, b2, {3, "a", "a"}}}, check.Report{Delivered: 2, Duplicated: 1}},
		"seen again after a reconnect": {[][]sight{{a1, a1, b2}}, check.Report{Delivered: 2, Duplicated: 1}},
		"swapped":                      {[][]sight{{b2, a1}}, check.Report{Delivered: 2, OutOfOrder: 2}},
		"a gap":                        {[][]sight{{a1, {3, "b", "b"}}}, check.Report{Delivered: 2, OutOfOrder: 1}},
		"a byte changed":               {[][]sight{{a1, {2, "b", "B"}}}, check.Report{Delivered: 2, Changed: 1}},
		"from nowhere":                 {[][]sight{{a1, b2, {3, "x", "x"}}}, check.Report{Delivered: 2, Changed: 1}},
	} {
		h := history(test.users...)
		got := h.Check()
		if got.Messages != 2 || got.Delivered != test.want.Delivered || got.Lost != test.want.Lost || got.Changed != test.want.Changed ||
			got.Duplicated != test.want.Duplicated || got.OutOfOrder != test.want.OutOfOrder || len(got.Faults) > 0 == got.OK() {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if h.Complete() != (got.Lost == 0) && len(test.users) > 0 {
			t.Errorf("%s: complete: %v, with %d lost", name, h.Complete(), got.Lost)
		}
	}
	// Two users see the same numbers for different messages: a log that was taken back.
	h := history([]sight{a1, b2}, []sight{{1, "b", "b"}, {2, "a", "a"}})
	if r := h.Check(); r.OutOfOrder != 2 {
		t.Errorf("different orders: %+v", r)
	}
}
