#!lua flags=allow-oom
-- Tells whether there is work, for a worker that is about to wait.
--
-- KEYS meta stat
-- ARGV head, ms for which a worker of all types waits or 0, numbers of pairs.
-- RETURNS 1 if a pair has available tasks.
--@include head

if tonumber(ARGV[6]) > 0 and tonumber(head[4] or 0) < NOW + ARGV[6] then
  redis.call('HSET', META, 'any', NOW + ARGV[6])
end
if #ARGV == 6 then return 0 end
local fields = {}
for i = 7, #ARGV do
  fields[i - 6] = 'A' .. ARGV[i]
end
for from = 1, #fields, 4000 do
  for _, n in ipairs(redis.call('HMGET', KEYS[2], unpack(fields, from, math.min(from + 3999, #fields)))) do
    if n and tonumber(n) > 0 then return 1 end
  end
end
return 0
