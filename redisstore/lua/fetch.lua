#!lua flags=allow-oom
-- Claims tasks for a worker and renews its lease, after moving what is due into line.
--
-- KEYS meta task run own uniq stat events workers held/WORKER cancel/WORKER ctl/WORKER
-- KEYS each pair: line/PAIR back/PAIR due/PAIR exp/PAIR wake/QUEUE/TYPE wake/QUEUE/
-- ARGV head, worker, lease in ms, most claims, 1 to return early when a worker is lost or a task has expired, 1 if wake
--      tokens live in this slot, payload bytes after which to stop, 1 if the worker serves all types, for each pair in
--      the order of service: number, subject, index of its queue, 1 if its queue is paused.
-- RETURNS 'tend', 1 if a worker is lost, packed ids of expired tasks; or
--      'ok', clock, when to look again (0: nothing in sight), 1 if tasks were left behind, a flat list of the
--      packed ids and tokens of held tasks whose cancellation was asked for, a flat list of claims: packed id, task record, run record; the indices of pairs to be
--      woken if the tokens live elsewhere. Or WAGGLELEASE: the worker is not registered.
--@include head
--@include events
--@include stat
--@include wake
--@include promote

local TASK, RUN, OWN, UNIQ, STAT, EVENTS, WORKERS = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local HELD, CANCEL, CTL = KEYS[9], KEYS[10], KEYS[11]
local worker, lease, want, careful, wake_here, room = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10] == '1', tonumber(ARGV[11])

local lease_end = redis.call('ZSCORE', WORKERS, worker)
if not lease_end or tonumber(lease_end) <= 1 then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
redis.call('ZADD', WORKERS, NOW + lease, worker)

local queues, all, fields = {}, {}, {}
for i = 1, (#ARGV - 12) / 4 do
  local a, k = 9 + i * 4, 11 + (i - 1) * 6
  local p = {number = ARGV[a], subject = ARGV[a + 1], line = KEYS[k + 1], back = KEYS[k + 2], due = KEYS[k + 3],
    exp = KEYS[k + 4], wake = KEYS[k + 5], wake_any = KEYS[k + 6], paused = ARGV[a + 3] == '1'}
  local q = tonumber(ARGV[a + 2])
  queues[q] = queues[q] or {}
  table.insert(queues[q], p)
  all[i] = p
  fields[i * 4 - 3], fields[i * 4 - 2], fields[i * 4 - 1], fields[i * 4] = 'A' .. p.number, 'S' .. p.number, 'T' .. p.number, 'E' .. p.number
end
local soonest = 0
local function look_at(ms)
  if soonest == 0 or ms < soonest then soonest = ms end
end

-- counts of all pairs, so that only those with something in them cost more.
for from = 1, #fields, 4000 do
  local to = math.min(from + 3999, #fields)
  local v = redis.call('HMGET', STAT, unpack(fields, from, to))
  for f = from, to, 4 do
    local p, at = all[(f + 3) / 4], f - from + 1
    p.available, p.waiting, p.expiring = tonumber(v[at] or 0), tonumber(v[at + 1] or 0) + tonumber(v[at + 2] or 0), tonumber(v[at + 3] or 0)
  end
end

for _, q in ipairs(queues) do
  local due = {}
  for _, p in ipairs(q) do
    if p.waiting > 0 then due[#due + 1] = p end
  end
  if #due > 0 then
    promote(RUN, due, 500)
    for _, p in ipairs(due) do
      local moved = deltas['A' .. p.number] or 0
      p.available, p.waiting = p.available + moved, p.waiting - moved
      p.expiring = p.expiring + (deltas['E' .. p.number] or 0)
      if p.waiting > 0 then
        local first = redis.call('ZRANGE', p.due, 0, 0, 'WITHSCORES')
        if first[2] then look_at(tonumber(first[2])) end
      end
    end
  end
end

if careful then
  local lost = redis.call('ZRANGEBYSCORE', WORKERS, '-inf', NOW, 'LIMIT', 0, 1)
  local expired = {}
  for _, p in ipairs(all) do
    if p.expiring > 0 and #expired < 500 then
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', p.exp, '-inf', NOW, 'LIMIT', 0, 500 - #expired)) do
        expired[#expired + 1] = id
      end
    end
  end
  if #lost > 0 or #expired > 0 then
    flush_stat(STAT)
    flush_events(EVENTS)
    return {'tend', #lost, expired}
  end
end

-- Claiming. BAND is the width of a priority band in the scores of back/PAIR.
local BAND = 17592186044416
local zero6 = string.rep('\0', 6)
local epoch = 1735689600000 -- tokens count milliseconds from 2025 on, so that they fit beside the pair's number
local fresh_token = NOW - epoch
local tail = string.char(#worker) .. worker
local claims, held, writes, gone = {}, {}, {}, {}
local per = {}

-- head_of returns up to k entries of a queue's pairs in order: lists of ids and of {pair, from line?, score}.
local function head_of(q, k)
  local list, sources = {}, 0
  for _, p in ipairs(q) do
    if p.available > 0 and not p.paused then
      p.line_at, p.back_at = p.line_at or 0, p.back_at or 0
      local back = redis.call('ZRANGE', p.back, p.back_at, p.back_at + k - 1, 'WITHSCORES')
      local line = redis.call('LRANGE', p.line, p.line_at, p.line_at + k - 1)
      if #back > 0 then sources = sources + 1 end
      if #line > 0 then sources = sources + 1 end
      for i = 1, #back, 2 do
        list[#list + 1] = {p = p, id = back[i], score = tonumber(back[i + 1])}
      end
      for i = 1, #line do
        local e = line[i]
        list[#list + 1] = {p = p, id = string.sub(e, 7), order6 = string.sub(e, 1, 6)}
      end
    end
  end
  if sources > 1 then
    for _, e in ipairs(list) do
      if not e.score then e.score = 100 * BAND + struct.unpack('>I6', e.order6) end
    end
    table.sort(list, function(a, b) return a.score < b.score end)
  end
  return list
end

local function claim(p, id, task, run)
  local flags, rec = string.byte(task, 13), nil
  local expires, body = zero6, 18
  if flags % 2 == 1 then
    expires, body = string.sub(task, 18, 23), 24
  end
  if run then
    local token = struct.unpack('>I6', run, 20) + 1
    if token < fresh_token then token = fresh_token end
    local attempt = struct.unpack('>I4', run, 38) + 1
    rec = 'R' .. string.char(flags % 8) .. '\0' .. string.sub(run, 4, 19) .. struct.pack('>I6', token) .. NOW6
      .. expires .. struct.pack('>I4', attempt) .. string.sub(run, 42, 45) .. string.rep('\0', 12)
      .. string.sub(run, 58, 61) .. tail
  else
    local b1, b2, b3 = string.byte(task, body, body + 2)
    local size = #task - body - 2 - (b1 * 65536 + b2 * 256 + b3)
    rec = 'R' .. string.char(flags % 8) .. '\0' .. string.sub(task, 17, 17) .. string.sub(task, 14, 16)
      .. string.sub(task, 7, 12) .. string.sub(task, 1, 6) .. struct.pack('>I6', fresh_token) .. NOW6 .. expires
      .. '\0\0\0\1\0\0\0\0' .. string.rep('\0', 12) .. struct.pack('>I4', size) .. tail
  end
  local n = #held + 1
  held[n] = id
  writes[n * 2 - 1], writes[n * 2] = id, rec
  claims[n * 3 - 2], claims[n * 3 - 1], claims[n * 3] = id, task, rec
  local mine = per[p]
  mine.ids[#mine.ids + 1] = id
  if flags % 2 == 1 then mine.exp[#mine.exp + 1] = id end
  if flags % 8 >= 4 then gone[#gone + 1] = id end
  room = room - #task
end

-- serve claims from one queue until want is met, its line is at its end, or the bound on work is reached.
local function serve(q)
  local rounds = 0
  while #held < want and room > 0 and rounds < 20 do
    rounds = rounds + 1
    local list = head_of(q, math.min(want - #held, 200))
    if #list == 0 then return end
    local k = math.min(#list, want - #held, 200)
    local ids = {}
    for i = 1, k do ids[i] = list[i].id end
    local tasks, runs = redis.call('HMGET', TASK, unpack(ids)), redis.call('HMGET', RUN, unpack(ids))
    for i = 1, k do
      local e, task, run = list[i], tasks[i], runs[i]
      local p = e.p
      per[p] = per[p] or {ids = {}, exp = {}, back = {}, moved = {}}
      if room <= 0 then break end
      if e.order6 then
        p.line_at = p.line_at + 1
      else
        p.back_at = p.back_at + 1
        table.insert(per[p].back, e.id)
      end
      local order6 = run and string.sub(run, 8, 13) or (task and string.sub(task, 7, 12))
      local there = task and #task >= 20 and (not run or string.sub(run, 1, 1) == 'A') and (not e.order6 or e.order6 == order6)
      if there then
        local late = string.byte(task, 13) % 2 == 1 and struct.unpack('>I6', task, 18) <= NOW
        if late then
          if e.order6 then
            table.insert(per[p].moved, 100 * BAND + struct.unpack('>I6', e.order6))
            table.insert(per[p].moved, e.id)
          else
            table.remove(per[p].back)
          end
        else
          claim(p, e.id, task, run)
        end
      end
    end
  end
end

if want > 0 then
  for _, q in ipairs(queues) do
    if #held >= want or room <= 0 then break end
    serve(q)
  end
end

if #held > 0 then
  redis.call('HSET', RUN, unpack(writes))
  redis.call('SADD', HELD, unpack(held))
end
for p, mine in pairs(per) do
  if p.line_at > 0 then redis.call('LTRIM', p.line, p.line_at, -1) end
  if #mine.back > 0 then redis.call('ZREM', p.back, unpack(mine.back)) end
  if #mine.moved > 0 then redis.call('ZADD', p.back, unpack(mine.moved)) end
  if #mine.exp > 0 then
    redis.call('ZREM', p.exp, unpack(mine.exp))
    count('E' .. p.number, -#mine.exp)
  end
  p.available = p.available - #mine.ids
  count('A' .. p.number, -#mine.ids)
  count('R' .. p.number, #mine.ids)
  emit('active', p.subject, worker, mine.ids)
end
if #gone > 0 then
  local keys = redis.call('HMGET', OWN, unpack(gone))
  for i = 1, #gone do
    if keys[i] then redis.call('HDEL', UNIQ, string.sub(keys[i], 2)) end
  end
  redis.call('HDEL', OWN, unpack(gone))
end

local left, woken = 0, {}
for i, p in ipairs(all) do
  if p.available > 0 and not p.paused then
    left = 1
    if want > 0 then
      if wake_here then
        wake(p.wake)
        if tonumber(head[4] or 0) > NOW then wake(p.wake_any) end
      else
        woken[#woken + 1] = i
      end
      break
    end
  end
end
if left == 0 and wake_here and #all > 0 then
  -- Tokens of pairs in which nothing waits would wake somebody for nothing.
  local tokens = {}
  for i, p in ipairs(all) do
    tokens[#tokens + 1] = p.wake
    if ARGV[12] == '1' then tokens[#tokens + 1] = p.wake_any end
  end
  redis.call('DEL', unpack(tokens))
end
local first = redis.call('ZRANGEBYSCORE', WORKERS, '(1', '+inf', 'WITHSCORES', 'LIMIT', 0, 2)
for i = 1, #first, 2 do
  if first[i] ~= worker then look_at(tonumber(first[i + 1])) end
end
local cancels = redis.call('HGETALL', CANCEL)
if #cancels > 0 then redis.call('DEL', CTL) end
flush_stat(STAT)
flush_events(EVENTS)
return {'ok', NOW, soonest, left, cancels, claims, woken}
