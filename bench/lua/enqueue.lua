-- enqueue stores tasks.
-- KEYS 1 records, hash id -> payload; 2 ready, list of ids
-- ARGV id, payload, id, payload, ...
-- RETURNS the number of tasks
redis.call('HSET', KEYS[1], unpack(ARGV))
local ids = {}
for i = 1, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
end
redis.call('RPUSH', KEYS[2], unpack(ids))
return #ids
