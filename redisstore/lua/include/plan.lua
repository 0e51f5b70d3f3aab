-- News of plans, and the places of plans. Needs head, events (uvarint), wake and record.

-- plan_place returns when a plan is to be thought of, see driver.Plan.Place; 0: never.
local function plan_place(h)
  local at = PLAN_NUM(h, wake)
  if PLAN_NUM(h, news) > PLAN_NUM(h, seen) then at = PLAN_NUM(h, updated) end
  local reserved, expires = PLAN_NUM(h, reserved), PLAN_NUM(h, expires)
  if at ~= 0 and reserved > NOW and reserved > at then at = reserved end
  if expires ~= 0 and (at == 0 or expires < at) then at = expires end
  return at
end

-- plan_put puts a plan where it belongs, and wakes a worker if it is due or the first that will be.
local function plan_put(DUE, WAKE, ref, h)
  local at = plan_place(h)
  local before = tonumber(redis.call('ZSCORE', DUE, ref) or 0)
  if at == 0 then
    if before ~= 0 then redis.call('ZREM', DUE, ref) end
    return
  end
  if at == before then return end
  redis.call('ZADD', DUE, at, ref)
  if (at <= NOW and (before == 0 or before > NOW)) or redis.call('ZRANGE', DUE, 0, 0)[1] == ref then wake(WAKE) end
end

local function plan_field(ref, n)
  return ref .. '/' .. string.format('%.0f', n)
end

-- tell adds news to a plan, if there is one. They are in the form of driver.AppendNews, with a time of zero.
local function tell(PLAN, NEWS, DUE, WAKE, ref, list)
  local h = redis.call('HGET', PLAN, ref)
  if not h then return end
  local n, writes = PLAN_NUM(h, news), {}
  for i, news in ipairs(list) do
    writes[i * 2 - 1] = plan_field(ref, n + i)
    writes[i * 2] = NEWS_BYTES(news, kind) .. uvarint(NOW) .. NEWS_REST(news)
  end
  redis.call('HSET', NEWS, unpack(writes))
  h = PLAN_WITH(h, news, pack('>I6', n + #list))
  redis.call('HSET', PLAN, ref, h)
  plan_put(DUE, WAKE, ref, h)
end
