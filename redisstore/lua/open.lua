#!lua flags=allow-oom
-- Creates a store where there is none, and brings one of an older format to this one. Records of older formats are read as
-- they are; the new incarnation keeps out the programs that would not know the new ones.
--
-- KEYS meta
-- ARGV a new incarnation, this program's schema version, the oldest that it reads, in the hub of several shards: how many shards
--      this program knows, and 1 if they were found in a store that does not say.
-- RETURNS incarnation and schema version of the store that is there now, and how many shards it has, empty if it does not say.
if redis.call('HEXISTS', KEYS[1], 'inc') == 0 then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'schema', ARGV[2], 'pairs', 0, 'conf', 0, 'seq', 0, 'ev', 0)
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'shards', ARGV[4]) end
elseif ARGV[5] == '1' then
  redis.call('HSETNX', KEYS[1], 'shards', ARGV[4])
end
local version = tonumber(redis.call('HGET', KEYS[1], 'schema') or '')
if version and version >= tonumber(ARGV[3]) and version < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'schema', ARGV[2])
end
local now = redis.call('HMGET', KEYS[1], 'inc', 'schema', 'shards')
return {now[1], now[2], now[3] or ''}
