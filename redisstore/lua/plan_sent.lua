#!lua flags=allow-oom
-- Removes entries of the outbox whose tasks are stored, and tells their plans of those that could not be. Nothing is done a
-- second time.
--
-- KEYS meta plan plannews plandue planwake planout planoutdue
-- ARGV head, for each entry: its name, its plan, the number of news, the news.
-- RETURNS how many were there.
--@include head
--@include events
--@include wake
--@include record
--@include plan

local at, there = 6, 0
while at < #ARGV do
  local entry, ref, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  redis.call('ZREM', KEYS[7], entry)
  if redis.call('HDEL', KEYS[6], entry) == 1 then
    there = there + 1
    if n > 0 then tell(KEYS[2], KEYS[3], KEYS[4], KEYS[5], ref, {unpack(ARGV, at + 3, at + 2 + n)}) end
  end
  at = at + 3 + n
end
return there
