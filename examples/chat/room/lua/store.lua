-- Writes chunks of a message, unless it has been put together already.
-- KEYS: message, chunks. ARGV: sum, head, seconds both are kept, then for each chunk its number and its text.
-- RETURNS: 1 or 0 for a conflict, how many chunks are stored, number of the message or 0
local known = redis.call('HMGET', KEYS[1], 'sum', 'number')
if known[1] and known[1] ~= ARGV[1] then
  return {0, 0, 0}
end
redis.call('HSET', KEYS[1], 'sum', ARGV[1]) -- see announce.lua
if known[2] then
  return {1, 0, tonumber(known[2])}
end
if not known[1] then -- its head was lost with more than one node
  redis.call('HSET', KEYS[1], 'head', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
local fresh = redis.call('EXISTS', KEYS[2]) == 0
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
if fresh then
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
return {1, redis.call('HLEN', KEYS[2]), 0}
