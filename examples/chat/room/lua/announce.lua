-- Notes the head of a message, unless its id belongs to another.
-- KEYS: message. ARGV: sum, head, seconds it is kept. RETURNS: 1 or 0 for a conflict, number or 0
local known = redis.call('HMGET', KEYS[1], 'sum', 'number')
if known[1] and known[1] ~= ARGV[1] then
  return {0, 0}
end
-- Written even if it is there: the WAIT that follows speaks of this connection's writes.
redis.call('HSET', KEYS[1], 'sum', ARGV[1])
if not known[1] then
  redis.call('HSET', KEYS[1], 'head', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return {1, tonumber(known[2] or 0)}
