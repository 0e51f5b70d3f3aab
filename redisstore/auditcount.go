package redisstore

import (
	"strconv"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// checkCounters compares the counters with what they count.
func (a *snapshot) checkCounters() {
	want := map[string]int{}
	for id := range a.tasks {
		r, _ := a.run(id)
		p := a.sh.byNumber(r.pair)
		if p == nil {
			continue
		}
		want[string(r.state)+p.digits]++
		if r.state == letterAvailable && r.flags&flagExpires != 0 {
			want[countExpiring+p.digits]++
		}
		if stateOf[r.state].Ended() {
			want[countKept+string(r.state)+p.queue]++
			want[countKeptBytes+string(r.state)+p.queue] += r.size
		}
	}
	for field, n := range a.stat {
		if strings.IndexByte("eycxdfkl", field[0]) < 0 && want[field] != n {
			a.wrongCounter(field, n, want[field])
		}
	}
	for field, n := range want {
		if _, ok := a.stat[field]; !ok && n != 0 {
			a.wrongCounter(field, 0, n)
		}
	}
	for _, p := range a.sh.allPairs() {
		a.checkTotals(p, want)
	}
}

// checkTotals looks that what came in is what has ended, is here, or was deleted.
func (a *snapshot) checkTotals(p *pair, want map[string]int) {
	total := func(letter string) int { return a.stat[letter+p.digits] }
	here := 0
	for _, st := range driver.States {
		if !st.Ended() {
			here += want[string(letterOf[st])+p.digits]
		}
	}
	in, out := total("e")+total("y"), total("c")+total("x")+total("d")+total("l")
	if in != out+here {
		a.report("wrong-total", "", "queue "+p.queue+", type "+p.typ+": "+strconv.Itoa(in)+" came in, "+strconv.Itoa(out)+" ended or were deleted, "+strconv.Itoa(here)+" are here").
			do("COUNT", a.sh.key("stat"), countEverEnqueued+p.digits, strconv.Itoa(out+here-in))
	}
}

func (a *snapshot) wrongCounter(field string, is, want int) {
	a.report("wrong-counter", "", "counter "+strconv.Quote(field)+" is "+strconv.Itoa(is)+", not "+strconv.Itoa(want)).
		do("COUNT", a.sh.key("stat"), field, strconv.Itoa(want-is))
}
