#!lua flags=allow-oom
-- Removes the configuration and the counters of a queue that holds no tasks in this shard. One that holds some stays.
--
-- KEYS meta conf stat events
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, queue, subject of the event, 1 to log it, the mark of shared queues, how many of the counters that follow count tasks by their state,
--      the counters to remove, those first.
-- RETURNS 1 if it was removed, 0 if it holds tasks.
--@include head
--@include events

local CONF, STAT, EVENTS, states = KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[10])
for a = 11, 10 + states do
  if tonumber(redis.call('HGET', STAT, ARGV[a]) or 0) ~= 0 then return 0 end
end
for a = 11, #ARGV do
  redis.call('HDEL', STAT, ARGV[a])
end
redis.call('HDEL', CONF, ARGV[6], ARGV[6] .. ARGV[9])
redis.call('DEL', unpack(KEYS, 5))
redis.call('HINCRBY', META, 'conf', 1)
if ARGV[8] == '1' then
  emit('queue_deleted', ARGV[7], '', {''})
  flush_events(EVENTS)
end
return 1
