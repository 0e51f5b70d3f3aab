package main

import (
	"context"
	"log"
)

func Example() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// call.flaky: completed after 3 attempts: connection refused
	// call.busy: completed after 2 attempts: too many requests
	// call.broken: discarded after 1 attempts: no customer is called ada
}
