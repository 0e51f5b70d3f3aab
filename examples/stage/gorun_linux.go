package stage

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

const parentEvery = 300 * time.Millisecond

// EndWithGoRun returns a context that also ends when the go command that runs this program is gone: it passes no signal on,
// and whoever ends "go run" means the program.
func EndWithGoRun(ctx context.Context) context.Context {
	parent := os.Getppid()
	name, err := os.ReadFile("/proc/" + strconv.Itoa(parent) + "/comm")
	if err != nil || strings.TrimSpace(string(name)) != "go" {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		for os.Getppid() == parent && ctx.Err() == nil {
			time.Sleep(parentEvery)
		}
	}()
	return ctx
}
