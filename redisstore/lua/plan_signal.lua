#!lua
-- Adds signals to plans.
--
-- KEYS meta plan plannews plandue planwake plansig
-- ARGV head, most news that may wait, ids of signals that a plan remembers, for each signal: plan, id, news.
-- RETURNS one letter a signal: 1 done, or done before; N no such plan, E it has ended, F too many news wait.
--@include head
--@include events
--@include wake
--@include record
--@include plan

local PLAN, SIG, most, kept = KEYS[2], KEYS[6], tonumber(ARGV[6]), tonumber(ARGV[7])
local letters = {}
for i = 8, #ARGV, 3 do
  local ref, id, news = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local h = redis.call('HGET', PLAN, ref)
  local letter = '1'
  if not h then
    letter = 'N'
  elseif redis.call('HEXISTS', SIG, ref .. '/' .. id) == 1 then
    letter = '1'
  elseif PLAN_NUM(h, expires) ~= 0 then
    letter = 'E'
  elseif PLAN_NUM(h, news) - PLAN_NUM(h, seen) >= most then
    letter = 'F'
  else
    local n = PLAN_NUM(h, signals) + 1
    local place = ref .. '//' .. (n % kept)
    local old = redis.call('HGET', SIG, place)
    if old then redis.call('HDEL', SIG, ref .. '/' .. old) end
    redis.call('HSET', SIG, place, id, ref .. '/' .. id, '1')
    redis.call('HSET', PLAN, ref, PLAN_WITH(h, signals, pack('>I6', n)))
    tell(PLAN, KEYS[3], KEYS[4], KEYS[5], ref, {news})
  end
  letters[#letters + 1] = letter
end
return table.concat(letters)
