package waggletest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/plainjson"
)

// Matcher says why a task is not the one that is looked for, or "" if it is.
type Matcher func(t *waggle.TaskInfo) string

// WithPayload matches tasks whose payload is what v would be stored as; JSON is compared by value.
func WithPayload(v any) Matcher {
	return func(t *waggle.TaskInfo) string {
		if raw, ok := v.([]byte); ok {
			return unequal("payload", t.Payload.Encoding == waggle.EncodingRaw && slices.Equal(raw, t.Payload.Bytes), t.Payload.Bytes, raw)
		}
		want, err := plainjson.Marshal(v)
		if err != nil {
			return fmt.Sprintf("the wanted payload is no JSON: %v", err)
		}
		got := t.Payload.Bytes
		if len(got) == 0 {
			got = []byte("null")
		}
		var a, b any
		same := t.Payload.Encoding != waggle.EncodingRaw && json.Unmarshal(want, &a) == nil && json.Unmarshal(got, &b) == nil && reflect.DeepEqual(a, b)
		return unequal("payload", same, string(got), string(want))
	}
}

// InQueue matches tasks of a queue.
func InQueue(name string) Matcher {
	return func(t *waggle.TaskInfo) string { return unequal("queue", t.Queue == name, t.Queue, name) }
}

// InState matches tasks in a state.
func InState(s waggle.State) Matcher {
	return func(t *waggle.TaskInfo) string { return unequal("state", t.State == s, t.State, s) }
}

// WithPriority matches tasks of a priority.
func WithPriority(p int) Matcher {
	return func(t *waggle.TaskInfo) string { return unequal("priority", t.Priority == p, t.Priority, p) }
}

// WithTags matches tasks that have all these tags.
func WithTags(tags ...string) Matcher {
	return func(t *waggle.TaskInfo) string {
		for _, tag := range tags {
			if !slices.Contains(t.Tags, tag) {
				return unequal("tags", false, t.Tags, tags)
			}
		}
		return ""
	}
}

// WithHeader matches tasks that have a header with this value.
func WithHeader(key, value string) Matcher {
	return func(t *waggle.TaskInfo) string {
		got, ok := t.Headers[key]
		return unequal("header "+key, ok && got == value, got, value)
	}
}

// DueIn matches tasks that were enqueued with a delay of d, give or take a hundredth of it and a millisecond (a busy
// machine may lie between the counting of a delay and the acceptance of its task); 0: none.
func DueIn(d time.Duration) Matcher {
	return func(t *waggle.TaskInfo) string {
		got := max(t.DueAt.Sub(t.EnqueuedAt), 0)
		return unequal("delay", (got-d).Abs() <= time.Millisecond+d/100, got, d)
	}
}

func unequal(what string, same bool, got, want any) string {
	if same {
		return ""
	}
	return fmt.Sprintf("%s is %v, want %v", what, got, want)
}

// RequireEnqueued returns a task of a type in the client's store that all matchers accept, the newest if there are
// several, and fails the test if there is none. Ended tasks count too, as long as they are kept.
func RequireEnqueued(t testing.TB, c *waggle.Client, typ string, matchers ...Matcher) *waggle.TaskInfo {
	t.Helper()
	found, misses := find(t, c, typ, matchers)
	if found == nil {
		t.Fatalf("waggletest: no task of type %q was enqueued that matches.%s", typ, misses)
	}
	return found
}

// RefuteEnqueued fails the test if there is a task of a type in the client's store that all matchers accept.
func RefuteEnqueued(t testing.TB, c *waggle.Client, typ string, matchers ...Matcher) {
	t.Helper()
	if found, _ := find(t, c, typ, matchers); found != nil {
		t.Fatalf("waggletest: task %s of type %q was enqueued: payload %s", found.ID, typ, found.Payload.Bytes)
	}
}

func find(t testing.TB, c *waggle.Client, typ string, matchers []Matcher) (*waggle.TaskInfo, string) {
	t.Helper()
	var misses strings.Builder
	for info, err := range c.All(t.Context(), waggle.Filter{Types: []string{typ}}) {
		if err != nil {
			t.Fatalf("waggletest: %v", err)
		}
		var why []string
		for _, m := range matchers {
			if miss := m(info); miss != "" {
				why = append(why, miss)
			}
		}
		if len(why) == 0 {
			return info, ""
		}
		fmt.Fprintf(&misses, "\n  %s: %s", info.ID, strings.Join(why, "; "))
	}
	if misses.Len() == 0 {
		return nil, " There is none of that type at all."
	}
	return nil, " Those of that type:" + misses.String()
}
