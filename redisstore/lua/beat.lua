#!lua flags=allow-oom
-- Renews a worker's lease.
--
-- KEYS meta workers cancel/WORKER ctl/WORKER directive
-- ARGV head, worker, lease in ms.
-- RETURNS the clock; a flat list of packed ids and tokens of the tasks it holds whose cancellation was asked for;
--      what it was told; 1 if it had been rung for, which is over with this. Or WAGGLELEASE: the worker is not registered.
--@include head

local lease_end = redis.call('ZSCORE', KEYS[2], ARGV[6])
if not lease_end or tonumber(lease_end) <= 1 then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
redis.call('ZADD', KEYS[2], NOW + ARGV[7], ARGV[6])
local cancels = redis.call('HGETALL', KEYS[3])
local directive = redis.call('HGET', KEYS[5], ARGV[6])
return {NOW, cancels, directive or '', redis.call('DEL', KEYS[4])}
