package waggle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
	"github.com/waggleq/waggle/internal/plainjson"
)

// Data is a payload or a result as it is stored.
//
// As JSON it is its JSON value, null if it is empty, and {"base64":"…"} if it is raw bytes.
type Data struct {
	Bytes    []byte
	Encoding Encoding
}

// IsZero reports whether there is none.
func (d Data) IsZero() bool { return len(d.Bytes) == 0 }

// Decode reads the data into v: JSON as encoding/json does; raw bytes only into a *[]byte. Empty data leaves v as it is.
func (d Data) Decode(v any) error {
	if p, ok := v.(*[]byte); ok && d.Encoding == EncodingRaw {
		*p = d.Bytes
		return nil
	}
	if raw, ok := v.(*json.RawMessage); ok && d.Encoding != EncodingRaw {
		*raw = d.Bytes
		return nil
	}
	switch {
	case len(d.Bytes) == 0:
		return nil
	case d.Encoding == EncodingRaw:
		return driver.Invalidf("raw bytes can't be read into a %T: use []byte", v)
	}
	if err := json.Unmarshal(d.Bytes, v); err != nil {
		return driver.Invalidf("not readable as %T: %w", v, err)
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (d Data) MarshalJSON() ([]byte, error) {
	switch {
	case d.Encoding == EncodingRaw:
		return plainjson.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString(d.Bytes)})
	case len(d.Bytes) == 0:
		return []byte("null"), nil
	}
	return d.Bytes, nil
}

// UnmarshalJSON implements [json.Unmarshaler]. An object whose only member is "base64", a string, is read as raw bytes.
func (d *Data) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) == nil && len(raw) == 1 && raw["base64"] != nil {
		var text *string
		if err := json.Unmarshal(raw["base64"], &text); err == nil && text != nil {
			if data, err := base64.StdEncoding.DecodeString(*text); err == nil {
				*d = Data{Bytes: data, Encoding: EncodingRaw}
				return nil
			}
		}
	}
	*d = Data{Encoding: EncodingJSON}
	if !bytes.Equal(b, []byte("null")) {
		d.Bytes = slices.Clone(b)
	}
	return nil
}

// encode returns the stored form of a payload or result: []byte is raw, json.RawMessage is JSON as it is, nil is empty,
// and all else is marshalled. The result may share the caller's bytes.
func encode(what string, v any) (Data, error) {
	switch v := v.(type) {
	case nil:
		return Data{Encoding: EncodingJSON}, nil
	case []byte:
		return Data{Bytes: v, Encoding: EncodingRaw}, nil
	case json.RawMessage:
		return Data{Bytes: v, Encoding: EncodingJSON}, nil
	case Data:
		return v, nil
	}
	var b []byte
	var err error
	if fault := guard.Call(func() { b, err = plainjson.Marshal(v) }); fault != nil {
		err = fault
	}
	if err != nil {
		return Data{}, driver.Errorf(ErrInvalid, "the %s can't be written as JSON: %w", what, fmt.Errorf("%T: %w", v, readable(err)))
	}
	return Data{Bytes: b, Encoding: EncodingJSON}, nil
}
