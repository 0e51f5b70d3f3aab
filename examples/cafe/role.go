package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/waggleq/waggle/examples/stage"
)

// roleVariable makes this program one of the processes of the play.
const roleVariable = "WAGGLE_CAFE_ROLE"

// The kinds of processes.
const (
	roleCafe      = "cafe"
	rolePayments  = "payments"
	roleCustomers = "customers"
	roleCounter   = "counter"
	roleSweep     = "sweep"
)

// Role says what a process is.
type Role struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Dir  string `json:"dir"` // where services keep their data
	// Of a café: its queue, the addresses of the services, and how long a machine takes.
	Store                        string `json:"store,omitzero"`
	Queue                        string `json:"queue,omitzero"`
	Customers, Payments, Counter string `json:",omitzero"`
	MachineTime                  time.Duration
}

// News is what a process tells the program that started it.
type News struct {
	Kind  string `json:"kind"`
	Addr  string `json:"addr,omitzero"` // with ready
	Order string `json:"order,omitzero"`
	Step  string `json:"step,omitzero"`
	Task  string `json:"task,omitzero"`
	Text  string `json:"text,omitzero"`
}

// The kinds of news.
const (
	newsReady       = "ready"
	newsStart       = "start"  // of a step
	newsDone        = "done"   // it has ended well
	newsFailed      = "failed" // it has not, and is tried again
	newsClash       = "clash"  // a machine was used twice at once
	newsCharged     = "charged"
	newsRepeatedKey = "repeated-key"
	newsOldToken    = "old-token"
	newsServed      = "served"
	newsGone        = "gone" // the process has ended
)

func paymentLedger(dir string) string { return filepath.Join(dir, "payments.jsonl") }
func counterLedger(dir string) string { return filepath.Join(dir, "served.jsonl") }

// perform is one of the processes, until it is told to end or the program that started it is gone.
func perform(r *Role) error {
	if r.Kind == roleSweep {
		return stage.Sweep(r.Dir)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the program that started this one
		cancel()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("process", r.Name)
	slog.SetDefault(log)
	out := stage.NewWriter(os.Stdout)
	tell := func(n News) { _ = out.Write(n) } // nobody may listen any more: then standard input ends too
	switch r.Kind {
	case roleCafe:
		return newCafe(r, tell).open(ctx, log)
	case rolePayments:
		p, err := newPayments(paymentLedger(r.Dir), tell)
		if err != nil {
			return err
		}
		return serveHTTP(ctx, p.routes, tell)
	case roleCounter:
		c, err := newCounter(counterLedger(r.Dir), tell)
		if err != nil {
			return err
		}
		return serveHTTP(ctx, c.routes, tell)
	case roleCustomers:
		db, err := openCustomers(filepath.Join(r.Dir, "customers.json"))
		if err != nil {
			return err
		}
		return serveHTTP(ctx, db.routes, tell)
	}
	return fmt.Errorf("there is no role %q", r.Kind)
}
