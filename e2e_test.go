package waggle_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

func TestRunsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := memstore.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		client, err := waggle.NewClient(store, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := waggle.NewWorker(store, nil)
		if err != nil {
			t.Fatal(err)
		}
		waggle.Handle(w, "double", func(ctx context.Context, t *waggle.Task, in int) error {
			time.Sleep(time.Second)
			return t.SetResult(2 * in)
		}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		r, err := client.Enqueue(ctx, "double", 21, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := client.Wait(ctx, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := waggle.Result[int](info)
		if err != nil || got != 42 {
			t.Fatalf("Result = %v, %v", got, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		client.Close(context.Background())
	})
}
