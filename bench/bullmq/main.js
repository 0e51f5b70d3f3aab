// BullMQ's side of the comparison: does one job, as job.go and drive.go describe, and prints its events.
import { setTimeout as sleep } from 'node:timers/promises';
import { writeSync } from 'node:fs';
import { Queue, Worker } from 'bullmq';

const job = JSON.parse(process.argv[2]);
const queueName = 'bench';
const payloadBytes = 100;
const numberDigits = 8;
const stallLimitMS = 60_000;
const filler = 'x'.repeat(payloadBytes - numberDigits - '{"p":""}'.length);

const { hostname, port } = new URL(job.url);
const connection = { host: hostname, port: Number(port) };

const print = (event) => writeSync(1, JSON.stringify(event) + '\n');
const message = (number) => ({ p: number.toString(16).padStart(numberDigits, '0') + filler });
const numberOf = (data) => {
  if (data.p.length !== numberDigits + filler.length) {
    throw new Error(`the handler got a payload of ${data.p.length} characters`);
  }
  return parseInt(data.p.slice(0, numberDigits), 16);
};
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

async function put(queue, first, count) {
  if (!(job.batch > 1)) {
    await queue.add('bench', message(first));
    return;
  }
  const jobs = Array.from({ length: count }, (_, i) => ({ name: 'bench', data: message(first + i) }));
  await queue.addBulk(jobs);
}

async function left(queue) {
  const counts = await queue.getJobCounts('waiting', 'active', 'delayed', 'prioritized', 'paused', 'waiting-children', 'failed');
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

async function expectLeft(queue, want) {
  const got = await left(queue);
  if (got !== want) throw new Error(`the queue holds ${got} tasks, not ${want}`);
}

const inParallel = (n, f) => Promise.all(Array.from({ length: n }, f));

// Rejects if the promise has not settled within stallLimitMS.
function soon(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no handler was called for ${stallLimitMS / 1000} s`)), stallLimitMS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function startWorker(handle) {
  const options = { connection };
  if (job.slots) options.concurrency = job.slots;
  const worker = new Worker(queueName, async (task) => handle(task.data), options);
  worker.on('error', (error) => console.error(error));
  await worker.waitUntilReady();
  return worker;
}

async function enqueue(queue) {
  const batch = Math.max(job.batch || 1, 1);
  let all = 0;
  const enqueueFor = async (ms) => {
    const until = performance.now() + ms;
    await inParallel(job.callers, async () => {
      while (performance.now() < until) {
        const first = all;
        all += batch;
        await put(queue, first, batch);
      }
    });
  };
  const cpu = cpuSeconds();
  await enqueueFor(job.warm_ms);
  const warm = all;
  const from = performance.now();
  await enqueueFor(job.run_ms);
  const seconds = (performance.now() - from) / 1000;
  const used = cpuSeconds() - cpu;
  await expectLeft(queue, all);
  return { count: all - warm, seconds, all, cpu_seconds: used };
}

async function fill(queue) {
  const batch = Math.max(job.batch || 1, 1);
  let next = 0;
  await inParallel(job.callers, async () => {
    while (next < job.tasks) {
      const first = next;
      next += batch;
      await put(queue, first, Math.min(batch, job.tasks - first));
    }
  });
  await expectLeft(queue, job.tasks);
  return { count: job.tasks };
}

async function work(queue) {
  const warm = Math.max(Math.floor(job.tasks / 10), 1);
  const times = new Uint32Array(job.tasks);
  let handled = 0;
  let warmAt = 0;
  let endAt = 0;
  let strange;
  let stalled;
  let finish;
  const all = new Promise((resolve, reject) => {
    finish = resolve;
    let before = -1;
    stalled = setInterval(() => {
      if (handled === before) reject(new Error(`${handled} of ${job.tasks} tasks were handled, and then none`));
      before = handled;
    }, stallLimitMS);
  });
  const cpu = cpuSeconds();
  const worker = await startWorker((data) => {
    const number = numberOf(data);
    if (!(number < job.tasks)) strange = new Error(`the handler got task ${number} of ${job.tasks}`);
    times[number]++;
    handled++;
    if (handled === warm) warmAt = performance.now();
    if (handled === job.tasks) {
      endAt = performance.now();
      finish();
    }
  });
  await all;
  clearInterval(stalled);
  const used = cpuSeconds() - cpu;
  await worker.close();
  if (strange) throw strange;
  if (times.some((n) => n !== 1)) throw new Error('a task was handled never or more than once');
  await expectLeft(queue, 0);
  return { count: job.tasks - warm, seconds: (endAt - warmAt) / 1000, all: job.tasks, cpu_seconds: used };
}

async function pickup(queue) {
  let started;
  const worker = await startWorker(() => started(performance.now()));
  const samples = [];
  for (let i = 0; i <= job.samples; i++) {
    const handler = new Promise((resolve) => { started = resolve; });
    await sleep(job.gap_ms + Math.random() * job.spread_ms);
    const before = performance.now();
    await queue.add('bench', message(i));
    const at = await soon(handler);
    if (i > 0) samples.push(at - before); // the first meets connections that are not there yet
  }
  await worker.close();
  await expectLeft(queue, 0);
  return { count: samples.length, samples_ms: samples };
}

async function hold(queue) {
  await startWorker(async () => {
    print({ event: 'started' });
    await new Promise(() => {});
  });
  await queue.add('bench', message(0));
  await new Promise(() => { setInterval(() => {}, 60_000); });
}

async function take(queue) {
  let started;
  const handler = new Promise((resolve) => { started = resolve; });
  const worker = await startWorker(() => {
    print({ event: 'started' });
    started();
  });
  print({ event: 'ready' });
  await handler;
  await worker.close();
  await expectLeft(queue, 0);
  return {};
}

const actions = { open: async () => ({}), enqueue, fill, work, pickup, hold, take };
const queue = new Queue(queueName, { connection });
queue.on('error', (error) => console.error(error));
await queue.waitUntilReady();
const measured = await actions[job.do](queue);
print({ event: 'done', ...measured });
await queue.close();
