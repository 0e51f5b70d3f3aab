#!lua
-- Does steps of plans, each only if its plan still has the version that the step expects.
--
-- KEYS meta plan planbody planpart plannews plandue planlist planwake planout planoutdue
-- ARGV head, for each step: plan, version, state, wake and expires in ms (0: none), highest number of the news dealt with,
--      body, number of parts, for each: name, 1 to replace or 0 to remove it, its bytes; the tasks to be enqueued, in the
--      form of outbox.go, '' if there are none.
-- RETURNS for each step: the plan's version, 1 if the step was accepted.
--@include head
--@include events
--@include wake
--@include record
--@include plan

local PLAN, BODY, PART, NEWS, DUE, LIST, WAKE, OUT, OUTDUE = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local at = 5
local function arg()
  at = at + 1
  return ARGV[at]
end
local function six(n) return pack('>I6', n) end

-- parts_of returns the names of a plan's parts, which follow its state.
local function parts_of(rest)
  local names = {}
  for name in string.gmatch(rest, ' ([^ ]+)') do names[name] = true end
  return names
end

local out = {}
while at < #ARGV do
  local ref, expect, state, wakes, expires, seen, body = arg(), tonumber(arg()), arg(), tonumber(arg()), tonumber(arg()), tonumber(arg()), arg()
  local parts = {}
  for i = 1, tonumber(arg()) do
    parts[i] = {arg(), arg(), arg()}
  end
  local tasks = arg()
  local h = redis.call('HGET', PLAN, ref)
  local version = h and PLAN_NUM(h, version) or 0
  local accepted = version == expect
  if accepted then
    local created, news, old, names = NOW, 0, 0, {}
    if h then
      created, news, old, names = PLAN_NUM(h, created), PLAN_NUM(h, news), PLAN_NUM(h, seen), parts_of(PLAN_REST(h))
      version = version + 1
    else
      version = NOW * 1024
      redis.call('ZADD', LIST, 0, ref)
    end
    seen = math.min(seen, news)
    if seen > old then
      local gone = {}
      for n = old + 1, seen do
        gone[#gone + 1] = plan_field(ref, n)
        if #gone == 1000 or n == seen then
          redis.call('HDEL', NEWS, unpack(gone))
          gone = {}
        end
      end
    else
      seen = old
    end
    redis.call('HSET', BODY, ref, body)
    for _, p in ipairs(parts) do
      if p[2] == '1' then
        redis.call('HSET', PART, ref .. '/' .. p[1], p[3])
        names[p[1]] = true
      else
        redis.call('HDEL', PART, ref .. '/' .. p[1])
        names[p[1]] = nil
      end
    end
    local rest = state
    for name in pairs(names) do rest = rest .. ' ' .. name end
    local made = PLAN_MAKE(version = pack('>I7', version), created = six(created), updated = NOW6, wake = six(wakes), expires = six(expires),
      reserved = six(0), seen = six(seen), news = six(news), signals = h and PLAN_BYTES(h, signals) or six(0)) .. rest
    redis.call('HSET', PLAN, ref, made)
    if tasks ~= '' then
      local entry = plan_field(ref, version)
      redis.call('HSET', OUT, entry, tasks)
      redis.call('ZADD', OUTDUE, NOW + CONST(outbox), entry)
    end
    plan_put(DUE, WAKE, ref, made)
  end
  out[#out + 1] = version
  out[#out + 1] = accepted and 1 or 0
end
return out
