#!lua flags=allow-oom
-- Tells whether there is work, for a worker that is about to wait.
--
-- KEYS meta stat workers plandue
-- ARGV head, worker, ms for which a worker of all types waits or 0, 1 if it waits for plans, numbers of pairs.
-- RETURNS 1 if a pair has available tasks, or a plan is due. Or WAGGLELEASE: the worker is not registered.
--@include head

local lease_end = redis.call('ZSCORE', KEYS[3], ARGV[6])
if not lease_end or tonumber(lease_end) <= 1 then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
if tonumber(ARGV[7]) > 0 and tonumber(head[4] or 0) < NOW + ARGV[7] then
  redis.call('HSET', META, 'any', NOW + ARGV[7])
end
if ARGV[8] == '1' and #redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', NOW, 'LIMIT', 0, 1) > 0 then return 1 end
if #ARGV == 8 then return 0 end
local fields = {}
for i = 9, #ARGV do
  fields[i - 8] = 'A' .. ARGV[i]
end
for from = 1, #fields, 4000 do
  for _, n in ipairs(redis.call('HMGET', KEYS[2], unpack(fields, from, math.min(from + 3999, #fields)))) do
    if n and tonumber(n) > 0 then return 1 end
  end
end
return 0
