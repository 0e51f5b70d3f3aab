package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

// disk measures single callers that want their task on disk: on Valkey with an append-only file that is synced each
// second and WAITAOF, on Redis with one that is synced before each reply.
type disk struct {
	*lab
	servers []*measured
}

// measured is a server with the figure that it is for.
type measured struct {
	*redisserver.Server
	id string
}

func startDisk(ctx context.Context, l *lab) (probe, error) {
	d := &disk{lab: l}
	for _, kind := range []struct {
		id      string
		flavour redisserver.Flavour
		aof     redisserver.AOF
	}{{diskAOF, redisserver.Valkey, redisserver.AOFEverySec}, {diskAlways, redisserver.Redis, redisserver.AOFAlways}} {
		s, err := redisserver.Start(ctx, &redisserver.Options{Flavour: kind.flavour, AOF: kind.aof})
		if err != nil {
			return nil, errors.Join(err, d.close(ctx))
		}
		d.servers = append(d.servers, &measured{s, kind.id})
	}
	return d, nil
}

func (d *disk) close(context.Context) (err error) {
	for _, s := range d.servers {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (d *disk) round(ctx context.Context) error {
	for _, server := range d.servers {
		if err := d.once(ctx, server); err != nil {
			return fmt.Errorf("%s %s: %w", server.Flavour(), server.Version(), err)
		}
	}
	return nil
}

func (d *disk) once(ctx context.Context, server *measured) (err error) {
	s, err := openStore(ctx, server.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	perS, err := s.singly(ctx, d.rate, &waggle.EnqueueOptions{Durability: driver.DurabilityDisk})
	if err != nil {
		return err
	}
	d.board.add(server.id, perS)
	d.board.tasks += d.rate
	return s.drain(ctx, newLedger(d.rate))
}
