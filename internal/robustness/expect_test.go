package robustness

import (
	"strings"

	"github.com/waggleq/waggle/driver"
)

// ends is how a task is to have ended.
type ends struct {
	state    driver.State
	reason   driver.Reason
	attempt  int
	crashes  int
	worker   string           // the name of the worker that had it last; "": any
	outcomes []driver.Outcome // of its history; nil: any
}

// wantEnds waits for the ends of tasks and compares them.
func (s *site) wantEnds(want ends, ids ...string) {
	s.Helper()
	for _, r := range s.awaitEnd(ids...) {
		if r.State != want.state || r.Reason != want.reason || r.Attempt != want.attempt || r.Crashes != want.crashes {
			s.Errorf("%s is %s (%s) after attempt %d and %d crashes, want %+v", r.ID, r.State, r.Reason, r.Attempt, r.Crashes, want)
		}
		if want.worker != "" && !strings.HasPrefix(r.Worker, want.worker+":") {
			s.Errorf("%s ended in the hands of %s, want %s", r.ID, r.Worker, want.worker)
		}
		if want.outcomes == nil {
			continue
		}
		if got := outcomes(r); strings.Join(got, " ") != joinOutcomes(want.outcomes) {
			s.Errorf("the attempts of %s ended with %v, want %v", r.ID, got, want.outcomes)
		}
	}
}

func outcomes(r *driver.Record) []string {
	var list []string
	for _, a := range r.Attempts {
		list = append(list, string(a.Outcome))
	}
	return list
}

func joinOutcomes(list []driver.Outcome) string {
	texts := make([]string, len(list))
	for i, o := range list {
		texts[i] = string(o)
	}
	return strings.Join(texts, " ")
}

// wantHolder checks that a worker of this name holds tasks.
func (s *site) wantHolder(name string, ids ...string) {
	s.Helper()
	for _, id := range ids {
		if r := s.get(id); r.State != driver.Active || !strings.HasPrefix(r.Worker, name+":") {
			s.Errorf("%s is %s in the hands of %s, want it active and held by %s", id, r.State, r.Worker, name)
		}
	}
}

// endInOrder tells processes to end and checks that they do so without a complaint.
func (s *site) endInOrder(kids ...*child) {
	s.Helper()
	for _, c := range kids {
		c.stop()
	}
	for _, c := range kids {
		c.waitOK()
	}
}
