-- finish deletes tasks that are done.
-- KEYS 1 records, 2 held
-- ARGV id, ...
-- RETURNS the number of tasks that were held
redis.call('HDEL', KEYS[1], unpack(ARGV))
return redis.call('HDEL', KEYS[2], unpack(ARGV))
