#!lua flags=allow-oom
-- Stores the configuration of a queue.
--
-- KEYS meta conf events stat
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- KEYS each pair: wake/QUEUE/TYPE
-- ARGV head, queue, configuration, subject of the event, 1 to log it, the mark of shared queues if this one is shared out,
--      its configuration as scripts read it, then pairs of which no task may be available.
-- RETURNS the new version of the configurations and 0, or 0 and how many tasks are available in those pairs.
--@include head
--@include events
--@include wake

local available = 0
for i = 12, #ARGV do
  available = available + math.max(tonumber(redis.call('HGET', KEYS[4], 'A' .. ARGV[i]) or 0), 0)
end
if available > 0 then return {0, available} end
redis.call('HSET', KEYS[2], ARGV[6], ARGV[7])
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[6] .. ARGV[10], '1')
  if redis.call('HGET', KEYS[6], 'conf') ~= ARGV[11] then
    -- What the home of the queue has lent under the limits as they were is void.
    local lent = redis.call('HGETALL', KEYS[6])
    for i = 1, #lent, 2 do
      local kind, number = string.match(lent[i] .. ' ' .. lent[i + 1], '^([qpg]):%S+ !?(%d+)')
      if kind == 'q' then
        redis.call('HSET', KEYS[6], lent[i], string.format('%.0f 0', number + 1))
      elseif kind == 'p' then
        redis.call('HSET', KEYS[6], lent[i], number .. ' 0 0')
      elseif kind == 'g' and string.byte(lent[i + 1]) ~= 33 then
        redis.call('HSET', KEYS[6], lent[i], '!' .. lent[i + 1]) -- nothing starts by it until all shards have told what they have
      end
    end
    redis.call('HSET', KEYS[6], 'conf', ARGV[11], 'sweep', '0')
    redis.call('HINCRBY', KEYS[6], 'gen', 1)
  end
end
local version = redis.call('HINCRBY', META, 'conf', 1)
for k = 11, #KEYS do
  wake(KEYS[k])
end
if ARGV[9] == '1' then
  emit('queue_changed', ARGV[8], '', {''})
  flush_events(KEYS[3])
end
return {version, 0}
