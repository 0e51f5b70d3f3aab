#!lua flags=allow-oom
-- Stores the configuration of a queue.
--
-- KEYS meta conf events stat task run workers
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- KEYS each worker: held/WORKER
-- KEYS each pair: wake/QUEUE/TYPE
-- ARGV head, queue, configuration, subject of the event, 1 to log it, the mark of shared queues if this one is shared out,
--      its configuration as scripts read it, '' or, if the active tasks of its keys are counted from now on, how many pairs it has and their
--      numbers, then number of workers, the workers, then pairs of which no task may be available.
-- RETURNS the new version of the configurations and 0, or 0 and how many tasks are available in those pairs. Or WAGGLESTALE: there are
--      other workers.
--@include head
--@include events
--@include stat
--@include record
--@include run
--@include wake
--@include share

local at, numbers = 12, nil
if ARGV[12] ~= '' then
  numbers = {unpack(ARGV, 13, 12 + ARGV[12])}
  at = at + #numbers
end
local worker_count = tonumber(ARGV[at + 1])
at = at + 1 + worker_count
if numbers then
  local workers, named = redis.call('ZRANGE', KEYS[7], 0, -1), {}
  for i = at - worker_count + 1, at do named[ARGV[i]] = true end
  for _, w in ipairs(workers) do
    if not named[w] then return redis.error_reply('WAGGLESTALE there are other workers') end
  end
end

-- count_held counts the active tasks of all keys of the queue, which nobody has counted so far.
local function count_held()
  local q, of_queue, counters = share_at(7), {}, {}
  for i, n in ipairs(numbers) do of_queue[tonumber(n)], counters[i] = true, 'h' .. n end
  if #counters > 0 then redis.call('HDEL', q.share, unpack(counters)) end
  for w = 1, worker_count do
    local held = redis.call('SMEMBERS', KEYS[13 + w])
    for from = 1, #held, 1000 do
      local ids, names, pairs_of = {unpack(held, from, math.min(from + 999, #held))}, {}, {}
      local runs = redis.call('HMGET', KEYS[6], unpack(ids))
      for i, task in ipairs(redis.call('HMGET', KEYS[5], unpack(ids))) do
        local r = runs[i] and read_run(runs[i])
        if r and r.state == 'R' and of_queue[r.pair] and task and HAS(r.flags, keyed) then
          names[#names + 1], pairs_of[#pairs_of + 1] = (key_in(task)), r.pair
        end
      end
      keys_read(q, names)
      for i, name in ipairs(names) do key_hold(q, name, pairs_of[i], 1) end
    end
  end
  share_end()
end

local available = 0
for i = at + 1, #ARGV do
  available = available + math.max(tonumber(redis.call('HGET', KEYS[4], 'A' .. ARGV[i]) or 0), 0)
end
if available > 0 then return {0, available} end
redis.call('HSET', KEYS[2], ARGV[6], ARGV[7])
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[6] .. ARGV[10], '1')
  if redis.call('HGET', KEYS[9], 'conf') ~= ARGV[11] then
    -- What the home of the queue has lent under the limits as they were is void.
    local lent = redis.call('HGETALL', KEYS[9])
    for i = 1, #lent, 2 do
      local kind, number = string.match(lent[i] .. ' ' .. lent[i + 1], '^([qpg]):%S+ !?(%d+)')
      if kind == 'q' then
        redis.call('HSET', KEYS[9], lent[i], string.format('%.0f 0', number + 1))
      elseif kind == 'p' then
        redis.call('HSET', KEYS[9], lent[i], number .. ' 0 0')
      elseif kind == 'g' and string.byte(lent[i + 1]) ~= 33 then
        redis.call('HSET', KEYS[9], lent[i], '!' .. lent[i + 1]) -- nothing starts by it until all shards have told what they have
      end
    end
    redis.call('HSET', KEYS[9], 'conf', ARGV[11], 'sweep', '0')
    local gen = redis.call('HINCRBY', KEYS[9], 'gen', 1)
    if numbers then
      redis.call('HSET', KEYS[9], 'counted', gen)
      count_held()
    end
  end
end
local version = redis.call('HINCRBY', META, 'conf', 1)
for k = 14 + worker_count, #KEYS do
  wake(KEYS[k])
end
if ARGV[9] == '1' then
  emit('queue_changed', ARGV[8], '', {''})
  flush_events(KEYS[3])
end
return {version, 0}
