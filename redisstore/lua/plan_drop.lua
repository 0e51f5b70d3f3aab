#!lua flags=allow-oom
-- Removes plans with all that belongs to them.
--
-- KEYS meta plan planbody planpart plannews plandue planlist plansig
-- ARGV head, 1 to remove only those that have expired, ids of signals that a plan remembers, plans.
-- RETURNS one letter a plan: 1 removed, 0 not.
--@include head
--@include record

local PLAN, BODY, PART, NEWS, DUE, LIST, SIG = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local expired, kept = ARGV[6] == '1', tonumber(ARGV[7])

local function drop(ref, h)
  redis.call('HDEL', PLAN, ref)
  redis.call('HDEL', BODY, ref)
  redis.call('ZREM', DUE, ref)
  redis.call('ZREM', LIST, ref)
  for name in string.gmatch(PLAN_REST(h), ' ([^ ]+)') do redis.call('HDEL', PART, ref .. '/' .. name) end
  for n = PLAN_NUM(h, seen) + 1, PLAN_NUM(h, news) do redis.call('HDEL', NEWS, ref .. '/' .. string.format('%.0f', n)) end
  for n = 0, math.min(PLAN_NUM(h, signals), kept - 1) do
    local place = ref .. '//' .. n
    local id = redis.call('HGET', SIG, place)
    if id then redis.call('HDEL', SIG, place, ref .. '/' .. id) end
  end
end

local letters = {}
for i = 8, #ARGV do
  local h = redis.call('HGET', PLAN, ARGV[i])
  local letter = '0'
  if h and (not expired or PLAN_NUM(h, expires) ~= 0 and PLAN_NUM(h, expires) <= NOW) then
    drop(ARGV[i], h)
    letter = '1'
  end
  letters[#letters + 1] = letter
end
return table.concat(letters)
