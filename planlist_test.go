package waggle_test

import (
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// One plan that can't be read does not take the list of the others with it.
func TestListsNameWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	store, client := memoryStore(t)
	for _, id := range []string{"a", "c"} {
		w := waggle.NewWorkflow(id, nil)
		w.Task("only", "t", nil, nil)
		if _, err := client.StartWorkflow(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		if _, err := client.PutSchedule(t.Context(), waggle.Schedule{Name: id, Line: "@daily", Type: "t"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"workflow", "schedule"} {
		r, err := store.Advance(t.Context(), []driver.PlanStep{{PlanRef: driver.PlanRef{Kind: kind, Name: "b"}, State: "running",
			Wake: time.Now().Add(time.Hour), Body: []byte("no JSON")}})
		if err != nil || r[0].Err != nil {
			t.Fatal(err, r)
		}
	}
	states := map[string]string{}
	for w, err := range client.Workflows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		states["workflow "+w.ID] = w.State
		if w.ID == "b" && w.Reason == "" {
			t.Error("no reason is given for b")
		}
	}
	for s, err := range client.Schedules(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		states["schedule "+s.Name] = s.State
	}
	for what, want := range map[string]string{
		"workflow a": "running", "workflow b": "damaged", "workflow c": "running",
		"schedule a": "active", "schedule b": "damaged", "schedule c": "active",
	} {
		if states[what] != want {
			t.Errorf("%s is listed as %q, want %q", what, states[what], want)
		}
	}
}
