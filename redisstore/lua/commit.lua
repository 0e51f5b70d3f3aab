#!lua flags=allow-oom
-- Does changes that a client has worked out from records it read, each only if its records are still as they were.
--
-- KEYS meta stat events
-- KEYS each guard: any
-- ARGV head, items (see include/guarded.lua).
-- RETURNS one letter an item: 1 done, 2 done and it is due sooner than all others of its pair, 0 left alone because something had changed.
--@include head
--@include events
--@include stat
--@include wake
--@include record
--@include plan
--@include guarded

local items = read_guarded(5)
local letters = {}
for i, item in ipairs(items) do
  if item_holds(item) then
    letters[i] = guarded_write({item}) and '2' or '1'
  else
    letters[i] = '0'
  end
end
flush_stat(KEYS[2])
flush_events(KEYS[3])
return table.concat(letters)
