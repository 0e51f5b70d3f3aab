#!lua flags=allow-oom
-- Stores the configuration of a queue.
--
-- KEYS meta conf events
-- KEYS each pair: wake/QUEUE/TYPE
-- ARGV head, queue, configuration, subject of the event, 1 to log it.
-- RETURNS the new version of the configurations.
--@include head
--@include events
--@include wake

redis.call('HSET', KEYS[2], ARGV[6], ARGV[7])
local version = redis.call('HINCRBY', META, 'conf', 1)
for k = 4, #KEYS do
  wake(KEYS[k])
end
if ARGV[9] == '1' then
  emit('queue_changed', ARGV[8], '', {''})
  flush_events(KEYS[3])
end
return version
