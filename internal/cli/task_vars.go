package cli

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/waggleq/waggle"
)

// vars is what a command finds of its task in its environment, and the store, so that a waggle that it calls works on the
// same one.
func (h *execHandler) vars(t *waggle.Task) []string {
	vars := []string{
		"WAGGLE_TASK_ID=" + t.ID,
		"WAGGLE_TASK_TYPE=" + t.Type,
		"WAGGLE_TASK_QUEUE=" + t.Queue,
		"WAGGLE_TASK_ATTEMPT=" + strconv.Itoa(t.Attempt),
		"WAGGLE_TASK_MAX_ATTEMPTS=" + strconv.Itoa(t.MaxAttempts),
		"WAGGLE_TASK_CRASHES=" + strconv.Itoa(t.Crashes),
		"WAGGLE_TASK_TOKEN=" + strconv.FormatInt(t.Token(), 10),
		"WAGGLE_TASK_WORKER=" + t.Worker(),
		"WAGGLE_TASK_PRIORITY=" + strconv.Itoa(t.Priority),
		"WAGGLE_TASK_ENQUEUED_AT=" + t.EnqueuedAt.UTC().Format(time.RFC3339Nano),
	}
	if len(t.Headers) > 0 {
		if text, err := json.Marshal(t.Headers); err == nil { // strings always encode
			vars = append(vars, "WAGGLE_TASK_HEADERS="+string(text))
		}
	}
	if h.store != "" {
		vars = append(vars, "WAGGLE_STORE="+h.store)
	}
	return vars
}
