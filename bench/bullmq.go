package main

func bullmqSpec() *spec {
	return &spec{
		name: "bullmq", label: "BullMQ", store: redisStore,
		defaultSlots: 1, defaultNote: "BullMQ's default",
		module: "bullmq",
		settings: "`new Queue(name, { connection })`, `new Worker(name, fn, { connection })`, at 100 with `concurrency: 100`; " +
			"`Queue.add`, and `Queue.addBulk` for bulk; ioredis, one Node.js process.",
		recovery: "lock 30 s, stalled jobs are looked for every 30 s",
	}
}
