package waggle_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle"
)

// FuzzEnqueueOptions hands in any options that JSON can tell: those that are read are written and read as the same.
func FuzzEnqueueOptions(f *testing.F) {
	f.Add([]byte(`{"id":"a","queue":"q","priority":-3,"delay":"1m30s","expires_in":"2h","hold":true,"max_attempts":2,"crash_limit":3,"timeout":"5s",` +
		`"headers":{"a":"b"},"tags":["x"],"unique":{"key":"k","until":"ttl","ttl":"1h","on_conflict":"reject"},"durability":"disk"}`))
	f.Add([]byte(`{"at":"9999-12-31T23:59:59.999999999-23:59","expires_at":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"delay":"9223372036854775807ns","timeout":"-1ns"}`))
	f.Add([]byte(`{"unique":null,"delay":5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o waggle.EnqueueOptions
		if json.Unmarshal(b, &o) != nil {
			return
		}
		written, err := json.Marshal(o)
		if err != nil {
			t.Fatalf("%s was read as %+v, which can't be written: %v", b, o, err)
		}
		var again waggle.EnqueueOptions
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s was written as %s, which can't be read: %v", b, written, err)
		}
		sameTime := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
		if diff := cmp.Diff(o, again, cmpopts.EquateEmpty(), sameTime); diff != "" {
			t.Errorf("%s came back as (-want +got):\n%s", b, diff)
		}
	})
}

// FuzzData reads any JSON as a payload or result: it comes back as the same value, and only an object whose one member
// is a base64 string is raw bytes.
func FuzzData(f *testing.F) {
	for _, s := range []string{`null`, `"x"`, `{"base64":"aGk="}`, `{"base64":""}`, `{"base64":null}`, `{"base64":[104,105]}`, `{"base64":"a"}`,
		`{"base64":"aGk=","more":1}`, `{"BASE64":"aGk="}`, ` {"base64":"aGk=","base64":1} `, `[1e400]`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d waggle.Data
		if json.Unmarshal(b, &d) != nil {
			return
		}
		written, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("%s was read as %+v, which can't be written: %v", b, d, err)
		}
		if d.Encoding == waggle.EncodingRaw {
			var object map[string]any
			if err := json.Unmarshal(b, &object); err != nil || len(object) != 1 {
				t.Errorf("%s was read as the raw bytes %q", b, d.Bytes)
			}
			if _, ok := object["base64"].(string); !ok {
				t.Errorf("%s was read as the raw bytes %q", b, d.Bytes)
			}
		}
		var again waggle.Data
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s was written as %s, which can't be read: %v", b, written, err)
		}
		rewritten, err := json.Marshal(again)
		if err != nil || string(rewritten) != string(written) || again.Encoding != d.Encoding {
			t.Errorf("%s was written as %s, and then as %s, %v", b, written, rewritten, err)
		}
		var value any
		_ = d.Decode(&value)
	})
}
