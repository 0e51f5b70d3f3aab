#!lua flags=allow-oom
-- Tells a worker something that its next heartbeat delivers.
--
-- KEYS meta workers directive ctl/WORKER
-- ARGV head, worker, directive, the directive after which no other is accepted.
-- RETURNS 1 if the worker was told, 0 if it is not registered, 2 if it was told the last one before.
--@include head
--@include wake

local lease_end = redis.call('ZSCORE', KEYS[2], ARGV[6])
if not lease_end or tonumber(lease_end) <= 1 then return 0 end
if ARGV[7] ~= ARGV[8] and redis.call('HGET', KEYS[3], ARGV[6]) == ARGV[8] then return 2 end
redis.call('HSET', KEYS[3], ARGV[6], ARGV[7])
wake(KEYS[4])
return 1
