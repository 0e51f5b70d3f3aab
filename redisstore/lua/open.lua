#!lua flags=allow-oom
-- Creates a store where there is none.
--
-- KEYS meta
-- ARGV incarnation for a new store, its schema version.
-- RETURNS incarnation and schema version of the store that is there now.
if redis.call('HEXISTS', KEYS[1], 'inc') == 0 then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'schema', ARGV[2], 'pairs', 0, 'conf', 0, 'seq', 0, 'ev', 0)
end
return redis.call('HMGET', KEYS[1], 'inc', 'schema')
