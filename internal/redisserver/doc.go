// Package redisserver starts real Redis and Valkey servers on free loopback ports: one server, a Sentinel set, or a
// Cluster. Tests, benchmarks and the cluster demo use it; tests go through package redistest.
//
// Guarantees:
//   - A start returns when every server answers as itself and, where there are several, all know each other and every
//     replica is in sync. Nothing waits a fixed time.
//   - Each server has a temporary directory of its own, is stopped by its process id, and leaves nothing behind after
//     Close. On Linux a server dies with the program that started it, even if that is killed.
//   - Ports stay the same over Restart.
//
// One server:
//
//	s, err := redisserver.Start(ctx, &redisserver.Options{Flavour: redisserver.Valkey, AOF: redisserver.AOFAlways})
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	s.Kill()
//	err = s.Restart(ctx)
package redisserver
