#!lua flags=allow-oom
-- Ends the lives of workers: of one that leaves, or of those whose lease has run out. From then on their calls are
-- refused; their score in workers is 1 (leaves) or 0 (lost) until what they held is given back.
--
-- KEYS meta workers
-- ARGV head, worker that leaves or '', most workers.
-- RETURNS a flat list of workers to be buried and their scores.
--@include head

local WORKERS, leaves = KEYS[2], ARGV[6]
if leaves ~= '' then
  local lease_end = redis.call('ZSCORE', WORKERS, leaves)
  if not lease_end then return {} end
  if tonumber(lease_end) > 1 then
    redis.call('ZADD', WORKERS, 1, leaves)
    lease_end = 1
  end
  return {leaves, tonumber(lease_end)}
end
local out = {}
local list = redis.call('ZRANGEBYSCORE', WORKERS, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, ARGV[7])
for i = 1, #list, 2 do
  local score = tonumber(list[i + 1])
  if score > 1 then
    score = 0
    redis.call('ZADD', WORKERS, 0, list[i])
  end
  out[#out + 1] = list[i]
  out[#out + 1] = score
end
return out
