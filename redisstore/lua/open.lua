#!lua flags=allow-oom
-- Creates a store where there is none, and brings one of an older format to this one. Records of older formats are read as
-- they are; the new incarnation keeps out the programs that would not know the new ones.
--
-- KEYS meta
-- ARGV a new incarnation, this program's schema version, the oldest that it reads.
-- RETURNS incarnation and schema version of the store that is there now.
if redis.call('HEXISTS', KEYS[1], 'inc') == 0 then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'schema', ARGV[2], 'pairs', 0, 'conf', 0, 'seq', 0, 'ev', 0)
end
local version = tonumber(redis.call('HGET', KEYS[1], 'schema') or '')
if version and version >= tonumber(ARGV[3]) and version < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'schema', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'inc', 'schema')
