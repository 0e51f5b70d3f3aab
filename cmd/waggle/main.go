// Command waggle is a task queue in one binary: `waggle demo` shows it at work, `waggle help` lists what it can do.
package main

import (
	"os"
	_ "time/tzdata" // times without a zone are read in the machine's, also where it has no zone data

	"github.com/waggleq/waggle/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:]))
}
