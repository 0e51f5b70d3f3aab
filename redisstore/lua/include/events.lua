-- The event log: one stream entry for all events of a script, in the packed form of driver.AppendEvents. An entry's
-- stream id is the number of its last event, so that the log is bounded by events and a cursor is a number.
local function uvarint(n)
  local out = ''
  while n >= 128 do
    out = out .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return out .. string.char(n)
end

local function text(s)
  return uvarint(#s) .. s
end

local entries, logged = {}, 0

-- emit adds events of one kind for the packed ids. subject is text(queue) .. text(type), actor a worker or driver.EventActor.
local function emit(kind, subject, actor, ids)
  local n = #ids
  if n == 0 then return end
  local same = true
  for i = 1, n do
    if #ids[i] ~= 16 then
      same = false
      break
    end
  end
  local packed
  if same then -- the usual case, without a new string for each id
    packed = '\16' .. table.concat(ids, '\16')
  else
    packed = {}
    for i = 1, n do
      packed[i] = string.char(#ids[i]) .. ids[i]
    end
    packed = table.concat(packed)
  end
  entries[#entries + 1] = uvarint(NOW) .. text(kind) .. subject .. text(actor) .. uvarint(n) .. packed
  logged = logged + n
end

-- flush_events writes what was emitted. EVENTS is the stream's key.
local function flush_events(EVENTS)
  if logged == 0 then return end
  local last = redis.call('HINCRBY', META, 'ev', logged)
  local oldest = last - ARGV[3]
  if oldest < 0 then oldest = 0 end
  redis.call('XADD', EVENTS, 'MINID', '=', oldest, last .. '-0', 'n', logged, 'e', table.concat(entries))
end
