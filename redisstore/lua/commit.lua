#!lua flags=allow-oom
-- Does changes that a client has worked out from records it read, each only if its records are still as they were.
--
-- KEYS meta stat events task run hist result news old ord
-- KEYS each guard: any
-- ARGV head, items (see include/guarded.lua).
-- RETURNS one letter an item: 1 done, 2 done and it is due sooner than all others of its pair, 0 left alone because something had
--      changed; after them, with a blank before each, the numbers of pairs of which something may start now because of others.
--@include head
--@include events
--@include stat
--@include wake
--@include record
--@include plan
--@include share
--@include guarded

local items = read_guarded(5)
read_checks(items)
local letters = {}
for i, item in ipairs(items) do
  if item_holds(item) then
    letters[i] = guarded_write({item}) and '2' or '1'
  else
    letters[i] = '0'
  end
end
guarded_end()
for _, q in pairs(shares) do
  regate_all(q)
  if q.freed then
    share_limits(q, KEYS[2], q.numbers)
    share_freed(q, KEYS[2])
  end
end
for _, pair in ipairs(share_end()) do letters[#letters + 1] = ' ' .. pair end
flush_stat(KEYS[2])
flush_events(KEYS[3])

if #forgotten > 0 then
  for k = 4, 8 do
    if redis.call('EXISTS', KEYS[k]) == 1 then redis.call('HDEL', KEYS[k], unpack(forgotten)) end
  end
  if redis.call('EXISTS', KEYS[9]) == 1 then redis.call('ZREM', KEYS[9], unpack(forgotten)) end
  -- The order of enqueueing has entries of tasks that are gone: where all are, it is empty.
  if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('UNLINK', KEYS[9], KEYS[10]) end
end
for key, counter in pairs(vacated) do
  if tonumber(redis.call('HGET', KEYS[2], counter) or 0) <= 0 then redis.call('UNLINK', key) end
end
return table.concat(letters)
