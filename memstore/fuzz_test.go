package memstore

import "testing"

// FuzzParseCursor hands in any cursor of a list and of events.
func FuzzParseCursor(f *testing.F) {
	s := &Store{incarnation: "00000000-0000-7000-8000-000000000000"}
	f.Add(s.cursor("list", 77))
	f.Add(s.cursor("events", 0))
	f.Add("list:x:-1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, of := range []string{"list", "events"} {
			n, err := s.parseCursor(of, text)
			if err != nil {
				continue
			}
			if again, err := s.parseCursor(of, s.cursor(of, n)); n < 0 || err != nil || again != n {
				t.Errorf("%q is the place %d, which came back as %d, %v", text, n, again, err)
			}
		}
	})
}
