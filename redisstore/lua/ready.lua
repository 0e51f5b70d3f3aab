#!lua flags=allow-oom
-- Tells whether there is work, for a worker that is about to wait.
--
-- KEYS meta stat workers plandue
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, worker, ms for which a worker of all types waits or 0, 1 if it waits for plans, number of pairs whose queues are
--      not shared out, their numbers; for each shared queue (see include/share.lua): how many of its pairs are waited for, their numbers,
--      how many pairs it has, their numbers.
-- RETURNS 1 if a pair has available tasks, or a plan is due. Or WAGGLELEASE: the worker is not registered.
--@include head
--@include stat
--@include record
--@include share

local lease_end = redis.call('ZSCORE', KEYS[3], ARGV[6])
if not lease_end or tonumber(lease_end) <= 1 then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
if tonumber(ARGV[7]) > 0 and tonumber(head[4] or 0) < NOW + ARGV[7] then
  redis.call('HSET', META, 'any', NOW + ARGV[7])
end
if ARGV[8] == '1' and #redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', NOW, 'LIMIT', 0, 1) > 0 then return 1 end
local fields, at = {}, 9 + tonumber(ARGV[9])
for i = 10, at do
  fields[i - 9] = 'A' .. ARGV[i]
end
for from = 1, #fields, 4000 do
  for _, n in ipairs(redis.call('HMGET', KEYS[2], unpack(fields, from, math.min(from + 3999, #fields)))) do
    if n and tonumber(n) > 0 then return 1 end
  end
end
local keys_before = 4
while at < #ARGV do
  local q, n = share_at(keys_before), tonumber(ARGV[at + 1])
  local wanted = {unpack(ARGV, at + 2, at + 1 + n)}
  at = at + 2 + n
  local all = tonumber(ARGV[at])
  share_limits(q, KEYS[2], {unpack(ARGV, at + 1, at + all)})
  at, keys_before = at + all, keys_before + SHARE_KEYS
  if q.sweep or #redis.call('ZRANGEBYSCORE', q.opens, '-inf', NOW, 'LIMIT', 0, 1) > 0 then return 1 end
  for _, number in ipairs(wanted) do
    if pair_ready(q, tonumber(number), tonumber(redis.call('HGET', KEYS[2], 'A' .. number) or 0)) then return 1 end
  end
end
return 0
