-- claim takes tasks off the list and marks them as held.
-- KEYS 1 records, 2 ready, 3 held, hash id -> time of the claim
-- ARGV 1 how many at most
-- RETURNS id, payload, id, payload, ...
local ids = redis.call('LPOP', KEYS[2], ARGV[1])
if not ids then
  return {}
end
local payloads = redis.call('HMGET', KEYS[1], unpack(ids))
local now = redis.call('TIME')[1]
local held, reply = {}, {}
for i, id in ipairs(ids) do
  held[2 * i - 1], held[2 * i] = id, now
  reply[2 * i - 1], reply[2 * i] = id, payloads[i]
end
redis.call('HSET', KEYS[3], unpack(held))
return reply
