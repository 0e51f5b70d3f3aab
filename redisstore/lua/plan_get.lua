#!lua flags=allow-oom
-- Reads plans, and reserves those that are due if that is asked for.
--
-- KEYS meta plan planbody planpart plannews plandue
-- ARGV head, 1 to reserve, ms of a reservation, most news of each, bytes of news after which to stop, 1 if all parts are
--      wanted, number of names of parts that are wanted, the names, plans.
-- RETURNS for each plan: nil if there is none, 0 if it is reserved already, or a list: head, body, a flat list of parts, a
--      list of news.
--@include head
--@include record
local function plan_due(h)
  local at = PLAN_NUM(h, wake)
  if PLAN_NUM(h, news) > PLAN_NUM(h, seen) then at = PLAN_NUM(h, updated) end
  return at ~= 0 and at <= NOW
end

local PLAN, BODY, PART, NEWS, DUE = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local reserve, keep, most, room, all, wanted = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1', tonumber(ARGV[11])

local function parts_of(ref, h)
  local parts = {}
  local function add(name)
    local b = redis.call('HGET', PART, ref .. '/' .. name)
    if b then
      parts[#parts + 1] = name
      parts[#parts + 1] = b
    end
  end
  if all then
    for name in string.gmatch(PLAN_REST(h), ' ([^ ]+)') do add(name) end
  else
    for i = 12, 11 + wanted do add(ARGV[i]) end
  end
  return parts
end

local function news_of(ref, h)
  local first, last = PLAN_NUM(h, seen) + 1, PLAN_NUM(h, news)
  local list, size = {}, 0
  for n = first, math.min(last, first + most - 1) do
    local v = redis.call('HGET', NEWS, ref .. '/' .. string.format('%.0f', n)) or ''
    size = size + #v + 200
    if #list > 0 and size > room then break end
    list[#list + 1] = v
  end
  return list
end

local out = {}
for i = 12 + wanted, #ARGV do
  local ref = ARGV[i]
  local h = redis.call('HGET', PLAN, ref)
  local answer = false
  if h and reserve and plan_due(h) and PLAN_NUM(h, reserved) > NOW then
    answer = 0
  elseif h then
    if reserve and plan_due(h) then
      local until_then, expires = NOW + keep, PLAN_NUM(h, expires)
      redis.call('HSET', PLAN, ref, PLAN_WITH(h, reserved, pack('>I6', until_then)))
      if expires ~= 0 and expires < until_then then until_then = expires end
      redis.call('ZADD', DUE, until_then, ref)
    end
    answer = {h, redis.call('HGET', BODY, ref) or '', parts_of(ref, h), news_of(ref, h)}
  end
  out[#out + 1] = answer
end
return out
