package stores_test

import (
	"context"
	"fmt"
	"log"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/stores"
)

// The store is a string: here one in memory, on a laptop sqlite:queue.db, and redis://HOST where there are many machines.
func Example() {
	ctx := context.Background()
	store, err := stores.Open(ctx, "memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := client.Enqueue(ctx, "email.welcome", "ada@example.com", nil)
	fmt.Println(receipt.State, err)
	// Output: available <nil>
}
