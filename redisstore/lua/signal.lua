#!lua flags=allow-oom
-- Wakes one waiting worker for each pair.
--
-- KEYS meta
-- KEYS each pair: wake/QUEUE/TYPE wake/QUEUE/
-- ARGV head.
-- RETURNS nothing.
--@include head
--@include wake

for k = 2, #KEYS, 2 do
  wake(KEYS[k])
  if tonumber(head[4] or 0) > NOW then wake(KEYS[k + 1]) end
end
return 1
