#!lua flags=no-writes
-- Lists what a worker holds.
--
-- KEYS meta workers held/WORKER
-- ARGV incarnation, worker, 1 if it must be registered.
-- RETURNS packed ids. Or WAGGLELEASE: the worker is not registered.
if redis.call('HGET', KEYS[1], 'inc') ~= ARGV[1] then
  return redis.error_reply('WAGGLELOST the store is not the one that was opened')
end
local lease_end = redis.call('ZSCORE', KEYS[2], ARGV[2])
if ARGV[3] == '1' and (not lease_end or tonumber(lease_end) <= 1) then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
return redis.call('SMEMBERS', KEYS[3])
