#!lua flags=allow-oom
-- Removes an entry of the outbox whose tasks are stored, and tells its plan of those that could not be. Nothing is done a
-- second time.
--
-- KEYS meta plan plannews plandue planwake planout planoutdue
-- ARGV head, the entry, its plan, news.
-- RETURNS 1 if it was there.
--@include head
--@include events
--@include wake
--@include record
--@include plan

redis.call('ZREM', KEYS[7], ARGV[6])
if redis.call('HDEL', KEYS[6], ARGV[6]) == 0 then return 0 end
if #ARGV > 7 then tell(KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[7], {unpack(ARGV, 8)}) end
return 1
