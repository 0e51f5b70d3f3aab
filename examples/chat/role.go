package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/examples/chat/room"
	"github.com/waggleq/waggle/examples/chat/web"
	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

const (
	// lease is how soon a dead worker's chunks go to others.
	lease = 2 * time.Second
	// slots is how many chunks a worker has in hand at once: they share their writes to the database.
	slots = 64
	drain = 2 * time.Second
)

// play is one of the chat's processes, until it is told to end or the program that started it is gone.
func play(role *wire.Role) error {
	if role.Kind == "sweep" {
		return stage.Sweep(role.Dir)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", role.Name)
	slog.SetDefault(log)
	place, err := room.Open(ctx, role.Store, log)
	if err != nil {
		return err
	}
	defer place.Close()
	switch role.Kind {
	case wire.Web:
		return serve(ctx, role, place)
	case wire.Worker:
		return work(ctx, role, place, log)
	}
	return fmt.Errorf("there is no role %q", role.Kind)
}

// serve is A1, or A2.
func serve(ctx context.Context, role *wire.Role, place *room.Place) error {
	stage := web.NewStage(os.Stdout)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_ = stage.Listen(os.Stdin) // ends with the program that started this one
		cancel()
	}()
	return web.New(role, place, stage).Serve(ctx, stage.Ready)
}

// work is a worker.
func work(ctx context.Context, role *wire.Role, place *room.Place, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the program that started this one
		cancel()
	}()
	worker, err := waggle.NewWorker(place.Store, &waggle.WorkerOptions{
		Name: role.Name, Queues: []waggle.Queue{{Name: room.Queue}}, Slots: slots, Lease: lease, DrainTimeout: drain, Logger: log,
	})
	if err != nil {
		return err
	}
	room.NewWriter(place.Database, role.Name).Register(worker)
	if err := stage.NewWriter(os.Stdout).Write(wire.FromProcess{Ready: true}); err != nil {
		return err
	}
	return worker.Run(ctx)
}
