-- Enters a message in the room's log, once.
-- KEYS: message, chunks, log. ARGV: sum, entry. RETURNS: the message's number
local known = redis.call('HMGET', KEYS[1], 'sum', 'number')
local number = tonumber(known[2] or 0)
if number == 0 then
  number = redis.call('RPUSH', KEYS[3], ARGV[2])
  redis.call('PERSIST', KEYS[1])
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[1], 'sum', ARGV[1], 'number', number) -- see announce.lua
return number
