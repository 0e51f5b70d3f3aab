#!lua flags=allow-oom
-- Moves due tasks into their lines, for a maintenance run over all pairs.
--
-- KEYS meta run stat events task
-- KEYS each pair: line/PAIR back/PAIR due/PAIR exp/PAIR wake/QUEUE/TYPE wake/QUEUE/
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, most tasks to move, 1 if wake tokens live in this slot, for each pair: number, subject, how many keys there
--      are before those of its queue if that is shared (see include/share.lua), else ''.
-- RETURNS tasks moved; the indices of pairs to be woken if the tokens live elsewhere; then for each pair up to that
--      many packed ids of available tasks whose expiry has passed, in one list; the ids of tasks that can't be read.
--@include head
--@include events
--@include stat
--@include wake
--@include record
--@include share
--@include promote

local limit, wake_here = tonumber(ARGV[6]), ARGV[7] == '1'
local moved, woken, expired = 0, {}, {}
for p = 1, (#ARGV - 7) / 3 do
  local base = 5 + (p - 1) * 6
  local a = 5 + p * 3
  local pair = {number = ARGV[a], subject = ARGV[a + 1], share = ARGV[a + 2] ~= '' and share_at(tonumber(ARGV[a + 2])) or nil, line = KEYS[base + 1], back = KEYS[base + 2],
    due = KEYS[base + 3], exp = KEYS[base + 4]}
  if moved < limit then
    local n = promote(KEYS[5], KEYS[2], {pair}, math.min(limit - moved, 500))
    moved = moved + n
    if n > 0 then
      if wake_here then
        wake(KEYS[base + 5])
        if tonumber(head[4] or 0) > NOW then wake(KEYS[base + 6]) end
      else
        woken[#woken + 1] = p
      end
    end
  end
  if #expired < limit then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', pair.exp, '-inf', NOW, 'LIMIT', 0, math.min(limit - #expired, 500))) do
      expired[#expired + 1] = id
    end
  end
end
share_end()
flush_stat(KEYS[3])
flush_events(KEYS[4])
return {moved, woken, expired, damaged}
