package waggle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

// contentKey returns the unique key of a task that is known by its type, queue and payload. Of JSON the value counts:
// spaces, the order of members and the form of numbers don't.
func contentKey(t *driver.Task) string {
	queue := t.Queue
	if queue == "" {
		queue = DefaultQueue
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(t.Type), []byte(queue), []byte(t.Encoding), canonical(t.Encoding, t.Payload)} {
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(part)))) // a hash never fails
		_, _ = h.Write(part)
	}
	return "content:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// sameData reports whether two payloads are the same bytes or, as JSON, the same value.
func sameData(a, b Data) bool {
	if a.Encoding != b.Encoding {
		return len(a.Bytes) == 0 && len(b.Bytes) == 0
	}
	return bytes.Equal(a.Bytes, b.Bytes) || bytes.Equal(canonical(a.Encoding, a.Bytes), canonical(b.Encoding, b.Bytes))
}

// canonical returns the one form of a payload that all payloads of the same value share. What is no JSON stays as it is.
func canonical(e Encoding, payload []byte) []byte {
	if e == EncodingRaw || len(payload) == 0 {
		return payload
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber() // a float64 would take neighbours for the same
	var v any
	if dec.Decode(&v) != nil {
		return payload
	}
	if _, err := dec.Token(); err != io.EOF {
		return payload
	}
	form, err := plainjson.Marshal(canonicalNumbers(v))
	if err != nil {
		return payload
	}
	return form
}

func canonicalNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return canonicalNumber(v)
	case []any:
		for i := range v {
			v[i] = canonicalNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = canonicalNumbers(v[k])
		}
	}
	return v
}

// canonicalNumber writes a number without zeros that say nothing: 1.50e3 and 1500 are 15e2.
func canonicalNumber(n json.Number) json.Number {
	text, negative := strings.CutPrefix(string(n), "-")
	mantissa, power, _ := strings.Cut(strings.ToLower(text), "e")
	exponent, err := strconv.ParseInt(cmp.Or(power, "0"), 10, 64)
	if err != nil || exponent > 1<<32 || exponent < -1<<32 {
		return n // nobody writes such a number in two ways
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	trimmed := strings.TrimRight(digits, "0")
	if trimmed == "" {
		return "0"
	}
	exponent += int64(len(digits)-len(trimmed)) - int64(len(fraction))
	if negative {
		trimmed = "-" + trimmed
	}
	if exponent == 0 {
		return json.Number(trimmed)
	}
	return json.Number(trimmed + "e" + strconv.FormatInt(exponent, 10))
}
