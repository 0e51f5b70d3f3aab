-- Guarded writes: a client that has read records and worked out their changes sends, for each item, the values that
-- must still be there and the writes to do. An item whose values have changed is left alone.
--
-- In ARGV: number of items; for each: number of checks, for each: index of the key, hash field, '-' (there is none),
-- '+' (there is one) or '=' .. value; number of writes, for each: command, index of the key, number of arguments, the arguments. Some commands
-- are not the server's: COUNT field delta (needs include/stat.lua); EVENT kind subject worker id
-- (needs include/events.lua); NEWS, whose first four arguments are keys too, by their index (needs include/plan.lua); WAKE, and WAKEALL if a worker of all types waits (need include/wake.lua); DUE ms id is a
-- ZADD, after which WAKESOONER and WAKEALLSOONER do the same if nothing else in that index is due as soon.

-- read_guarded parses the items that follow ARGV[at] and returns them with the index of the last argument read.
local function read_guarded(at)
  local items = {}
  local function arg()
    at = at + 1
    return ARGV[at]
  end
  for i = 1, tonumber(arg()) do
    local item = {checks = {}, writes = {}}
    for c = 1, tonumber(arg()) do
      item.checks[c] = {KEYS[tonumber(arg())], arg(), arg()}
    end
    for w = 1, tonumber(arg()) do
      local write = {arg(), KEYS[tonumber(arg())]}
      for a = 1, tonumber(arg()) do
        write[2 + a] = arg()
      end
      item.writes[w] = write
    end
    items[i] = item
  end
  return items, at
end

local function item_holds(item)
  for _, c in ipairs(item.checks) do
    if c[3] == '+' then
      if redis.call('HEXISTS', c[1], c[2]) == 0 then return false end
    else
      local v = redis.call('HGET', c[1], c[2])
      if (v and '=' .. v or '-') ~= c[3] then return false end
    end
  end
  return true
end

-- guarded_hold reports whether the checks of all items hold.
local function guarded_hold(items)
  for _, item in ipairs(items) do
    if not item_holds(item) then return false end
  end
  return true
end

-- is_sooner reports whether nothing in a due index is due as soon as ms.
local function is_sooner(due, ms)
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  return not first[2] or tonumber(ms) < tonumber(first[2])
end

-- guarded_write does the writes of items. It reports whether one of them is due sooner than all others of its index.
local function guarded_write(items)
  local any = tonumber(head[4] or 0) > NOW
  local sooner = false
  for _, item in ipairs(items) do
    for _, w in ipairs(item.writes) do
      if w[1] == 'COUNT' then
        count(w[3], tonumber(w[4]))
      elseif w[1] == 'NEWS' then
        tell(w[2], KEYS[tonumber(w[3])], KEYS[tonumber(w[4])], KEYS[tonumber(w[5])], w[6], {w[7]})
      elseif w[1] == 'EVENT' then
        emit(w[3], w[4], w[5], {w[6]})
      elseif w[1] == 'WAKE' then
        wake(w[2])
      elseif w[1] == 'WAKEALL' then
        if any then wake(w[2]) end
      elseif w[1] == 'DUE' then
        sooner = is_sooner(w[2], w[3])
        redis.call('ZADD', w[2], w[3], w[4])
      elseif w[1] == 'WAKESOONER' then
        if sooner then wake(w[2]) end
      elseif w[1] == 'WAKEALLSOONER' then
        if sooner and any then wake(w[2]) end
      else
        redis.call(unpack(w))
      end
    end
  end
  return sooner
end
