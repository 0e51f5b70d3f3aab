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
	// flaky: completed after 3 attempts: connection refused
	// busy: completed after 2 attempts: too many requests
	// broken: discarded after 1 attempts: no such customer
}
