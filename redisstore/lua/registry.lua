#!lua flags=no-writes
-- Reads what clients keep in memory.
--
-- KEYS meta pairs conf
-- ARGV pairs that are known already.
-- RETURNS incarnation, version of the pairs, version of the configurations, names of the further pairs, a flat list of
--      queues and their configurations.
local v = redis.call('HMGET', KEYS[1], 'inc', 'pairs', 'conf')
return {v[1], v[2], v[3], redis.call('LRANGE', KEYS[2], ARGV[1], -1), redis.call('HGETALL', KEYS[3])}
