package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
)

// payloadSize is how many bytes of JSON each task carries.
const payloadSize = 100

// template is a payload whose number is still to be filled in.
var template = func() []byte {
	const empty = `{"n":"00000000","pad":""}`
	return []byte(strings.Replace(empty, `""`, `"`+strings.Repeat("x", payloadSize-len(empty))+`"`, 1))
}()

// A payload has its number in these bytes.
const numberAt, numberEnd = len(`{"n":"`), len(`{"n":"00000000`)

// payloadOf returns the payload of the task with this number: JSON that any handler could read.
func payloadOf(n int) json.RawMessage {
	b := bytes.Clone(template)
	for at := numberEnd - 1; at >= numberAt; at-- {
		b[at] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// numberOf reads a number from a payload.
func numberOf(payload []byte) (int, error) {
	if len(payload) != payloadSize {
		return 0, fmt.Errorf("a payload has %d bytes instead of %d", len(payload), payloadSize)
	}
	return strconv.Atoi(string(payload[numberAt:numberEnd]))
}

// ledger counts how often each task has run.
type ledger struct {
	ran   []atomic.Int32
	total atomic.Int64
	bad   atomic.Pointer[error]
}

func newLedger(n int) *ledger { return &ledger{ran: make([]atomic.Int32, n)} }

// run notes a run, and returns how many there were.
func (l *ledger) run(payload []byte) int64 {
	n, err := numberOf(payload)
	switch {
	case err == nil && n >= len(l.ran):
		err = fmt.Errorf("task %d was never enqueued", n)
	case err == nil && l.ran[n].Add(1) > 1:
		err = fmt.Errorf("task %d ran twice", n)
	}
	if err != nil {
		l.bad.Store(&err)
	}
	return l.total.Add(1)
}

// check returns an error unless every task has run once.
func (l *ledger) check() error {
	if err := l.soFar(); err != nil {
		return err
	}
	if n := int(l.total.Load()); n != len(l.ran) {
		return fmt.Errorf("%d tasks were enqueued, %d ran", len(l.ran), n)
	}
	return nil
}

// soFar returns an error if something ran that should not have.
func (l *ledger) soFar() error {
	if err := l.bad.Load(); err != nil {
		return *err
	}
	return nil
}
