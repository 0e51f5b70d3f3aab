package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// payloadBytes is the size of every payload as the queue gets it, in JSON.
const payloadBytes = 100

// message is the payload: its text begins with the task's number in eight hexadecimal digits and is filled up.
type message struct {
	P string `json:"p"`
}

const numberDigits = 8

var filler = strings.Repeat("x", payloadBytes-numberDigits-len(`{"p":""}`))

func newMessage(number int) message { return message{P: fmt.Sprintf("%08x", number) + filler} }

// number returns the task's number, or an error if this is not one of our messages.
func (m message) number() (int, error) {
	if len(m.P) != numberDigits+len(filler) {
		return 0, fmt.Errorf("the handler got a payload of %d characters", len(m.P))
	}
	n, err := strconv.ParseUint(m.P[:numberDigits], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("the handler got a payload without a number: %w", err)
	}
	return int(n), nil
}

// encode returns the payload as JSON.
func (m message) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a struct of one string can always be encoded
	}
	return b
}

// newMessages returns count messages, numbered from first.
func newMessages(first, count int) []message {
	ms := make([]message, count)
	for i := range ms {
		ms[i] = newMessage(first + i)
	}
	return ms
}

// decodeMessage reads a payload.
func decodeMessage(payload []byte) (m message, err error) {
	err = json.Unmarshal(payload, &m)
	return m, err
}
