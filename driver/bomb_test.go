package driver

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBombsAreRefusedCheaply hands in what is made to exhaust memory or time. It is refused, and costs less than a
// thousandth of what it would if it were believed. The test is not parallel, so that only its own memory is counted.
func TestBombsAreRefusedCheaply(t *testing.T) {
	const (
		most     = 4 << 20          // bytes
		patience = 10 * time.Second // on a machine that is busy
	)
	now := time.UnixMilli(1_800_000_000_000)
	headers, tags := map[string]string{}, make([]string, 200_000)
	for i := range tags {
		tags[i] = "t" + strconv.Itoa(i)
		headers[tags[i]] = "v"
	}
	types := append(tags[:len(tags):len(tags)], "a b")
	huge, nested, objects := make([]byte, 64<<20), []byte(strings.Repeat("[", 1<<20)), []byte(strings.Repeat(`{"a":`, 200_000))
	long := strings.Repeat("x", 16<<20)
	prepare := func(task *Task) func() error {
		task.Type = "t"
		return func() error { return Prepare(task, allCaps, now) }
	}
	settle := func(s *Settlement) func() error {
		s.Outcome = Complete
		return func() error { return CheckSettlement(s, allCaps) }
	}
	// count is an envelope with one field, of which it says that there are more items than its bytes can hold.
	count := func(field, items uint64, rest int) func() error {
		b := binary.AppendUvarint(binary.AppendUvarint([]byte{envelopeVersion}, field), items)
		b = append(b, strings.Repeat("\xff", rest)...)
		return func() error { return DecodeEnvelope(b, &Task{}) }
	}
	for what, c := range map[string]struct {
		do   func() error
		want error
	}{
		"a payload of 64 MiB":                     {prepare(&Task{Payload: huge, Encoding: EncodingRaw}), ErrInvalid},
		"a JSON payload of 64 MiB":                {prepare(&Task{Payload: huge}), ErrInvalid},
		"200 000 headers":                         {prepare(&Task{Headers: headers}), ErrInvalid},
		"a header of 16 MiB":                      {prepare(&Task{Headers: map[string]string{"h": long}}), ErrInvalid},
		"a header name of 16 MiB":                 {prepare(&Task{Headers: map[string]string{long: "h"}}), ErrInvalid},
		"200 000 tags":                            {prepare(&Task{Tags: tags}), ErrInvalid},
		"a tag of 16 MiB":                         {prepare(&Task{Tags: []string{long}}), ErrInvalid},
		"an id of 16 MiB":                         {prepare(&Task{ID: long}), ErrInvalid},
		"a unique key of 16 MiB":                  {prepare(&Task{Unique: &Unique{Key: long}}), ErrInvalid},
		"a million arrays in each other":          {prepare(&Task{Payload: nested}), ErrInvalid},
		"200 000 objects in each other":           {prepare(&Task{Payload: objects}), ErrInvalid},
		"a result of 64 MiB":                      {settle(&Settlement{Result: huge, ResultEncoding: EncodingRaw}), ErrInvalid},
		"a result of arrays in each other":        {settle(&Settlement{Result: nested[:MaxResultBytes], ResultEncoding: EncodingJSON}), ErrInvalid},
		"a filter for 200 000 types":              {func() error { return (&Filter{Types: types}).Validate() }, ErrInvalid},
		"a state of 16 MiB":                       {func() error { return (&Filter{States: []State{State(long)}}).Validate() }, ErrInvalid},
		"an encoding of 16 MiB":                   {prepare(&Task{Encoding: Encoding(long)}), ErrInvalid},
		"a conflict policy of 16 MiB":             {prepare(&Task{Unique: &Unique{Key: "k", OnConflict: OnConflict(long)}}), ErrInvalid},
		"an operation of 16 MiB":                  {func() error { _, err := CheckChange(&Change{Op: Op(long)}); return err }, ErrInvalid},
		"an envelope of 2^63 headers":             {count(envHeaders, 1<<63, 100), ErrCorrupt},
		"an envelope of 16 million headers":       {count(envHeaders, 16_000_000, 16<<20), ErrCorrupt},
		"an envelope of 16 million tags":          {count(envTags, 16_000_000, 16<<20), ErrCorrupt},
		"an envelope of 16 million tasks to come": {count(envDependsOn, 16_000_000, 16<<20), ErrCorrupt},
		"events of 2^63 tasks": {func() error {
			_, err := DecodeEvents(nil, append([]byte{0, 0, 0, 0, 0}, binary.AppendUvarint(nil, 1<<63)...))
			return err
		}, ErrCorrupt},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		err := c.do()
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, c.want) || len(err.Error()) > 1024 {
			t.Errorf("%s: got %.1100v, want %v", what, err, c.want)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > most || took > patience {
			t.Errorf("%s: refused with %d bytes and %v", what, used, took)
		}
	}
}
