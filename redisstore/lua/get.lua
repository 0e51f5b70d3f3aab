#!lua flags=no-writes
-- Reads records as they are at one moment.
--
-- KEYS meta task run hist result news own
-- ARGV incarnation, clock offset, packed ids.
-- RETURNS the store's clock in ms, then six lists: the tasks, runs, histories, results, news and unique keys of the ids, nil
--      where there is none; a list is empty if there are none at all.
local clock = redis.call('TIME')
local out = {clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[2]}
if redis.call('HGET', KEYS[1], 'inc') ~= ARGV[1] then
  return redis.error_reply('WAGGLELOST the store is not the one that was opened')
end
if #ARGV == 2 then return out end
local ids = {unpack(ARGV, 3)}
for c = 2, 7 do
  out[c] = redis.call('EXISTS', KEYS[c]) == 1 and redis.call('HMGET', KEYS[c], unpack(ids)) or {}
end
return out
