#!lua flags=allow-oom
-- Wakes one waiting worker for each pair.
--
-- KEYS meta
-- KEYS each pair: wake/QUEUE/TYPE wake/QUEUE/
-- ARGV head, the token: in which shard there is something for them.
-- RETURNS nothing.
--@include head
--@include wake

for k = 2, #KEYS, 2 do
  wake(KEYS[k], ARGV[6])
  if tonumber(head[4] or 0) > NOW then wake(KEYS[k + 1], ARGV[6]) end
end
return 1
