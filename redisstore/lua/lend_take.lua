#!lua flags=allow-oom
-- Takes what the home of a queue has lent to this shard. See lend_share.lua.
--
-- KEYS meta
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, ms for which permits are good, for each loan: scope, version, quota ('': none), the limit, permits, their version,
--      the rate.
-- RETURNS how many were taken.
--@include head
--@include stat
--@include record
--@include share

local q, taken = share_at(1), 0
for i = 7, #ARGV, 7 do
  local scope, version, quota, most = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])
  local permits, permitted, rate = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), ARGV[i + 6]
  for _, l in ipairs(q.limits) do
    if q.part and l.scope == scope then
      read_lent(q, l)
      if quota ~= '' and l.most == most and version > l.version then
        redis.call('HSET', q.share, 'q:' .. scope, digits(version) .. ' ' .. quota)
        taken = taken + 1
      elseif quota == '' and l.rate == rate and permitted > l.permitted then
        redis.call('HSET', q.share, 'p:' .. scope, digits(permitted) .. ' ' .. digits(l.permits + permits) .. ' ' .. digits(NOW + ARGV[6]))
        taken = taken + 1
      end
    end
  end
end
return taken
