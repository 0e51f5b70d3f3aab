#!lua flags=allow-oom
-- Looks at keys of a shared queue again after its configuration has changed, some of them a call.
--
-- KEYS meta stat
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, numbers of the queue's pairs.
-- RETURNS 1 if some are left, the numbers of pairs of which something may start now and could not before.
--@include head
--@include stat
--@include record
--@include share

local q = share_at(2)
local left = share_tend(q, 500)
share_limits(q, KEYS[2], {unpack(ARGV, 6)})
for _, n in ipairs(q.numbers) do -- each for itself: a limit that is gone may have held back several types
  if pair_ready(q, tonumber(n), tonumber(redis.call('HGET', KEYS[2], 'A' .. n) or 0)) then q.news[tonumber(n)] = true end
end
return {left and 1 or 0, share_end()}
