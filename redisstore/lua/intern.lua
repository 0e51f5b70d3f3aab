#!lua
-- Gives numbers to pairs of queue and type. A number is never used twice.
--
-- KEYS meta pairs numbers
-- ARGV head, names: queue, NUL, type.
-- RETURNS nothing.
--@include head

for i = 6, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then
    redis.call('HSET', KEYS[3], ARGV[i], redis.call('RPUSH', KEYS[2], ARGV[i]))
    redis.call('HINCRBY', META, 'pairs', 1)
  end
end
return 1
