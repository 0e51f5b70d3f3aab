#!lua flags=allow-oom
-- Tells what a shard needs of the limits of a queue, and gives up what it was lent of them and does not need. See lend_share.lua.
--
-- KEYS meta stat
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, number of limits that are to be given up altogether, their scopes, numbers of the queue's pairs.
-- RETURNS for each limit of the queue and of types: its scope, version, the most that will be active here without a new loan,
--      how many are active, how many tasks could start, permits that are left.
--@include head
--@include stat
--@include record
--@include share

local drained, at = {}, 6
for i = 1, tonumber(ARGV[6]) do drained[ARGV[6 + i]] = true end
local q = share_at(2)
share_limits(q, KEYS[2], {unpack(ARGV, 7 + ARGV[6])})
local waiting, sum = {}, 0
for _, n in ipairs(q.numbers) do
  local parked = tonumber(redis.call('HGET', q.share, 'k' .. n) or 0)
  waiting[tonumber(n)] = math.max(tonumber(redis.call('HGET', KEYS[2], 'A' .. n) or 0) - parked, 0)
  sum = sum + waiting[tonumber(n)]
end
local out = {}
for _, l in ipairs(q.limits) do
  if l.version then
    local held, needs = held_of(q, l), l.pair == 0 and sum or waiting[l.pair] or 0
    local quota = math.min(l.quota, held + needs)
    if drained[l.scope] then quota = 0 end
    if quota < l.quota and not q.home then
      l.version = l.version + 1
      redis.call('HSET', q.share, 'q:' .. l.scope, digits(l.version) .. ' ' .. digits(quota))
    end
    for _, v in ipairs({l.scope, l.version, math.max(quota, held), held, needs, l.permits}) do out[#out + 1] = v end
  end
end
return out
