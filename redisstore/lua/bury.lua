#!lua flags=allow-oom
-- Removes a worker whose life has ended, once it holds nothing.
--
-- KEYS meta workers winfo gone events held/WORKER cancel/WORKER ctl/WORKER tick/WORKER directive
-- ARGV head, worker, ms for which its id is remembered, 1 to log the event.
-- RETURNS 1 if it is gone, 0 if it still holds tasks or lives.
--@include head
--@include events

local worker = ARGV[6]
local score = redis.call('ZSCORE', KEYS[2], worker)
if not score then return 1 end
if tonumber(score) > 1 or redis.call('SCARD', KEYS[6]) > 0 then return 0 end
redis.call('ZREM', KEYS[2], worker)
redis.call('HDEL', KEYS[3], worker)
redis.call('DEL', KEYS[7], KEYS[8], KEYS[9])
redis.call('HDEL', KEYS[10], worker)
redis.call('ZADD', KEYS[4], NOW, worker)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', NOW - ARGV[7])
if ARGV[8] == '1' then
  emit(tonumber(score) == 1 and 'worker_left' or 'worker_lost', '\0\0', worker, {''})
  flush_events(KEYS[5])
end
return 1
