-- Guarded writes: a client that has read records and worked out their changes sends, for each item, the values that
-- must still be there and the writes to do. An item whose values have changed is left alone.
--
-- In ARGV: number of items; for each: number of checks, for each: index of the key, hash field, '-' (there is none),
-- '+' (there is one) or '=' .. value; number of writes, for each: command, index of the key, number of arguments, the arguments. Some commands
-- are not the server's: COUNT field delta (needs include/stat.lua); EVENT kind subject actor id
-- (needs include/events.lua); NEWS, whose first four arguments are keys too, by their index (needs include/plan.lua); FLOW, whose
-- first five arguments are the other keys of a shared queue, then what to do there (needs include/share.lua); WAKE, and WAKEALL if a worker of all types waits (need include/wake.lua); DUE ms id is a
-- ZADD, after which WAKESOONER and WAKEALLSOONER do the same if nothing else in that index is due as soon; FORGET id removes
-- what belongs to a task, and VACATE counter the whole key if that counter is zero in the end (both only in commit.lua).
--
-- What many items do to one key is sent as few commands: see put. The order of writes to one key stays.

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

-- Writes that wait to be sent, by key: command, key, arguments. width is how many arguments of a command belong together.
local width = {HSET = 2, ZADD = 2, HDEL = 1, ZREM = 1, SADD = 1, SREM = 1, RPUSH = 1}
local waiting_of, waiting = {}, {}
-- fields_of are the fields of a hash that were written since it was read, by key.
local fields_of = {}

local function send(key)
  local b = waiting_of[key]
  if not b then return end
  waiting_of[key] = nil
  redis.call(unpack(b))
end

local function send_all()
  for _, key in ipairs(waiting) do send(key) end
  waiting = {}
end

-- put has a write done together with those of the same command that came before to the same key.
local function put(command, key, a, b)
  local batch = waiting_of[key]
  if batch and (batch[1] ~= command or #batch > 2000) then
    send(key)
    batch = nil
  end
  if not batch then
    batch = {command, key}
    waiting_of[key] = batch
    waiting[#waiting + 1] = key
  end
  batch[#batch + 1] = a
  if b then batch[#batch + 1] = b end
  if command == 'HSET' or command == 'HDEL' then
    local fields = fields_of[key]
    if not fields then
      fields = {}
      fields_of[key] = fields
    end
    fields[a] = true
  end
end

local function put_write(w)
  local n = width[w[1]]
  if not n then
    send(w[2])
    redis.call(unpack(w))
    return
  end
  for i = 3, #w, n do put(w[1], w[2], w[i], n == 2 and w[i + 1] or nil) end
end

-- What was read for checks, by key and field, and is still so where fields_of does not have it.
local read_of = {}

-- read_checks reads what the checks of all items ask for, a key at a time.
local function read_checks(items)
  local asked = {}
  for _, item in ipairs(items) do
    for _, c in ipairs(item.checks) do
      if c[3] ~= '+' then
        local list = asked[c[1]]
        if not list then
          list = {}
          asked[c[1]] = list
        end
        list[#list + 1] = c[2]
      end
    end
  end
  for key, list in pairs(asked) do
    local values, known = redis.call('HMGET', key, unpack(list)), {}
    for i, field in ipairs(list) do known[field] = values[i] end
    read_of[key] = known
  end
end

local function item_holds(item)
  for _, c in ipairs(item.checks) do
    local key, field, want = c[1], c[2], c[3]
    local written = fields_of[key] and fields_of[key][field]
    if written then send(key) end
    if want == '+' then
      if redis.call('HEXISTS', key, field) == 0 then return false end
    else
      local v = read_of[key] and read_of[key][field]
      if written or v == nil then v = redis.call('HGET', key, field) end
      if (v and '=' .. v or '-') ~= want then return false end
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
  send(due)
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  return not first[2] or tonumber(ms) < tonumber(first[2])
end

-- share_do does what a write says of a shared queue: + and - put a task into its flow and take it out, H counts a task that
-- is active for its key, W one that waits after it was claimed, F tells that a slot is free, R repairs
-- what is known of a key.
local function share_do(w)
  local k = {w[2]}
  for i = 3, 7 do k[#k + 1] = KEYS[tonumber(w[i])] end
  local q, what, name, pair = share_open(unpack(k)), w[8], w[9], tonumber(w[10])
  if what == '+' then
    flow_enter(q, name, pair, tonumber(w[11]), tonumber(w[12]), pack('>I6', tonumber(w[13])), w[14], w[15] == '1')
  elseif what == '-' then
    flow_leave(q, name, pair, tonumber(w[11]), tonumber(w[12]), pack('>I6', tonumber(w[13])), w[14])
  elseif what == 'H' then
    key_hold(q, name, pair, tonumber(w[11]))
  elseif what == 'W' then
    key_wait(q, name, tonumber(w[11]))
  elseif what == 'R' then
    send_all()
    key_reset(q, name, w[10])
  else
    q.numbers, q.freed = {unpack(w, 9)}, true
  end
end

-- announced are events of one kind in a row.
local announced = nil

local function announce()
  if announced then emit(announced.kind, announced.subject, announced.worker, announced.ids) end
  announced = nil
end

local function add_event(kind, subject, worker, id)
  local a = announced
  if a and a.kind == kind and a.subject == subject and a.worker == worker then
    a.ids[#a.ids + 1] = id
    return
  end
  announce()
  announced = {kind = kind, subject = subject, worker = worker, ids = {id}}
end

-- What FORGET and VACATE have noted.
local forgotten, vacated = {}, {}

-- guarded_write does the writes of items, but for those that put has left waiting. It reports whether one of them is due
-- sooner than all others of its index.
local function guarded_write(items)
  local any = tonumber(head[4] or 0) > NOW
  local sooner = false
  for _, item in ipairs(items) do
    for _, w in ipairs(item.writes) do
      local command = w[1]
      if command == 'COUNT' then
        count(w[3], tonumber(w[4]))
      elseif command == 'FORGET' then
        forgotten[#forgotten + 1] = w[3]
      elseif command == 'VACATE' then
        vacated[w[2]] = w[3]
      elseif command == 'NEWS' then
        send_all()
        tell(w[2], KEYS[tonumber(w[3])], KEYS[tonumber(w[4])], KEYS[tonumber(w[5])], w[6], {w[7]})
      elseif command == 'FLOW' then
        share_do(w)
      elseif command == 'EVENT' then
        add_event(w[3], w[4], w[5], w[6])
      elseif command == 'WAKE' then
        wake(w[2])
      elseif command == 'WAKEALL' then
        if any then wake(w[2]) end
      elseif command == 'DUE' then
        sooner = is_sooner(w[2], w[3])
        put('ZADD', w[2], w[3], w[4])
      elseif command == 'WAKESOONER' then
        if sooner then wake(w[2]) end
      elseif command == 'WAKEALLSOONER' then
        if sooner and any then wake(w[2]) end
      else
        put_write(w)
      end
    end
  end
  return sooner
end

-- guarded_end sends what waits.
local function guarded_end()
  send_all()
  announce()
end
