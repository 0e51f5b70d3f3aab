package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

func TestMessageHasTheSizeAndItsNumber(t *testing.T) {
	t.Parallel()
	for _, number := range []int{0, 1, 4095, 1 << 31, 1<<32 - 1} {
		m := newMessage(number)
		payload := m.encode()
		if len(payload) != payloadBytes {
			t.Errorf("the payload of task %d has %d bytes, not %d", number, len(payload), payloadBytes)
		}
		back, err := decodeMessage(payload)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := back.number(); err != nil || got != number {
			t.Errorf("task %d came back as %d, %v", number, got, err)
		}
	}
}

func TestMessageRefusesOthers(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "00000001", "0000000g" + filler, filler + filler} {
		if n, err := (message{p}).number(); err == nil {
			t.Errorf("%q has number %d; want an error", p, n)
		}
	}
}

func TestLedgerTimesAllButTheWarmUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(10, 2)
		for i := range 10 {
			if err := sleep(t.Context(), milliseconds(5)); err != nil {
				t.Fatal(err)
			}
			l.handle(newMessage(i))
		}
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.check(); err != nil {
			t.Error(err)
		}
		if got, want := l.ended().Sub(l.warmed()), milliseconds(8*5); got != want {
			t.Errorf("the timed part took %v; want %v", got, want)
		}
	})
}

func TestLedgerFindsFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handled []message
		want    string
	}{
		"lost":       {newMessages(0, 2), "1 were never handled and 0 more than once"},
		"twice":      {[]message{newMessage(0), newMessage(1), newMessage(1)}, "1 were never handled and 1 more than once"},
		"not ours":   {append(newMessages(0, 3), message{"?"}), "a payload of 1 characters"},
		"not queued": {append(newMessages(0, 3), newMessage(3)), "task 3 of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(3, 0)
			for _, m := range c.handled {
				l.handle(m)
			}
			if err := l.check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("check: %v; want %q in it", err, c.want)
			}
		})
	}
}

func TestLedgerGivesUpWhenNothingMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(2, 1)
		l.handle(newMessage(0))
		err := l.wait(t.Context())
		if err == nil || !strings.Contains(err.Error(), "1 of 2 tasks were handled") {
			t.Errorf("wait: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.wait(ctx); err != context.Canceled {
			t.Errorf("wait with an ended context: %v", err)
		}
	})
}
