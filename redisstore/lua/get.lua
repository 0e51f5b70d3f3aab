#!lua flags=no-writes
-- Reads records as they are at one moment.
--
-- KEYS meta task run hist result news own
-- ARGV incarnation, clock offset, packed ids.
-- RETURNS the store's clock in ms, then for each id: task, run, history, result, news and unique key, nil where there is none.
local clock = redis.call('TIME')
local out = {clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[2]}
if redis.call('HGET', KEYS[1], 'inc') ~= ARGV[1] then
  return redis.error_reply('WAGGLELOST the store is not the one that was opened')
end
if #ARGV == 2 then return out end
local ids = {unpack(ARGV, 3)}
local columns = {}
for c = 2, 7 do
  columns[c - 1] = redis.call('HMGET', KEYS[c], unpack(ids))
end
for i = 1, #ids do
  for c = 1, 6 do
    out[#out + 1] = columns[c][i]
  end
end
return out
