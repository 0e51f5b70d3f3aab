package execwork

import (
	"os"
	"slices"
	"strings"
)

// environ is the environment of a command: that of this process without the settings of a worker, which would configure
// every waggle that the command calls, and what is known of the task.
func (c *Command) environ(in *Input) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "WAGGLE_") && !strings.HasPrefix(v, "WAGGLE_STORE=")
	})
	return append(env, in.Vars...)
}
