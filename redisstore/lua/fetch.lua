#!lua flags=allow-oom
-- Claims tasks for a worker and renews its lease, after moving what is due into line.
--
-- KEYS meta task run own uniq stat events workers held/WORKER cancel/WORKER plan plandue planwake planoutdue
-- KEYS each pair: line/PAIR back/PAIR due/PAIR exp/PAIR wake/QUEUE/TYPE wake/QUEUE/
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, worker, lease in ms, most claims, 1 to return early when a worker is lost or a task has expired, 1 if wake
--      tokens live in this slot (2: those for work in other slots too), payload bytes after which to stop, 1 if the
--      worker serves all types, plans that are wanted ('': the worker takes none), number of pairs, for each in the order of service: number, subject, index of its queue,
--      1 if its queue is paused; for each shared queue (see include/share.lua, their keys follow the others): its index, the tag that all shards
--      have reached, priority and tag from which on its tasks are left (0: all are taken), what a task without a key adds to their tag, how many
--      pairs it has, their numbers.
-- RETURNS 'tend', 1 if a worker is lost, packed ids of expired tasks; or
--      'ok', clock, when to look again (0: nothing in sight), 0 or, if tasks were left behind,
--      1 (where this is the only slot) or 1 more than the priority byte of the first of them, a flat list of the
--      packed ids and tokens of held tasks whose cancellation was asked for, a flat list of claims: packed id, task record
--      (empty where it can't be read);
--      the count of the tokens of those that were never claimed before, a flat list of the others: number of the claim,
--      run record; the indices of pairs to be woken if the tokens live elsewhere; plans that are due; plans that have expired;
--      entries of the outbox that somebody has left behind; 1 if plans are left that are due; the indices of the queues of which
--      something waits for a part of a limit that other shards have; the tag of the first of the tasks left, if it has one; 1 if some
--      were left because of their tags, plus 2 if some of the shared queues have no key. Or WAGGLELEASE: the worker is not registered.
--@include head
--@include events
--@include stat
--@include wake
--@include record
--@include share
--@include promote

local TASK, RUN, OWN, UNIQ, STAT, EVENTS, WORKERS = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local HELD, CANCEL = KEYS[9], KEYS[10]
local worker, lease, want, careful, wake_here, room = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10] ~= '0', tonumber(ARGV[11])

local lease_end = redis.call('ZSCORE', WORKERS, worker)
if not lease_end or tonumber(lease_end) <= 1 then
  return redis.error_reply('WAGGLELEASE the worker is not registered')
end
redis.call('ZADD', WORKERS, NOW + lease, worker)

local queues, all, fields = {}, {}, {}
local pair_count = tonumber(ARGV[14])
for i = 1, pair_count do
  local a, k = 11 + i * 4, 14 + (i - 1) * 6
  local p = {number = ARGV[a], numeric = tonumber(ARGV[a]), from = pack('>I3', ARGV[a]), till = pack('>I3', ARGV[a] + 1), subject = ARGV[a + 1], line = KEYS[k + 1], back = KEYS[k + 2], due = KEYS[k + 3],
    exp = KEYS[k + 4], wake = KEYS[k + 5], wake_any = KEYS[k + 6], paused = ARGV[a + 3] == '1'}
  local q = tonumber(ARGV[a + 2])
  queues[q] = queues[q] or {}
  table.insert(queues[q], p)
  all[i], p.index = p, i
  fields[i * 4 - 3], fields[i * 4 - 2], fields[i * 4 - 1], fields[i * 4] = 'A' .. p.number, 'S' .. p.number, 'T' .. p.number, 'E' .. p.number
end
local soonest, due_soon = 0, nil
local function look_at(ms)
  if soonest == 0 or ms < soonest then soonest = ms end
end

local sharing, swept = {}, true
do
  local at, k = 15 + pair_count * 4, 14 + pair_count * 6
  while at < #ARGV do
    local q, n = queues[tonumber(ARGV[at])], tonumber(ARGV[at + 5])
    q.index = tonumber(ARGV[at])
    q.share = share_at(k)
    share_limits(q.share, STAT, {unpack(ARGV, at + 6, at + 5 + n)})
    q.share.spread = ARGV[10] ~= '1'
    q.share.virtual = math.max(q.share.virtual, tonumber(ARGV[at + 1]))
    q.share.end_prio, q.share.end_tag, q.share.step = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    for _, p in ipairs(q) do p.share = q.share end
    sharing[#sharing + 1] = q
    at, k = at + 6 + n, k + SHARE_KEYS
  end
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

-- However many queues have due tasks, so many are moved for all of them: the others are when this is called again, at once.
local promotable = math.min(math.max(2 * want, 100), 500)
for _, q in ipairs(queues) do
  local due = {}
  for _, p in ipairs(q) do
    if p.waiting > 0 then due[#due + 1] = p end
  end
  if #due > 0 then
    promotable = promotable - promote(TASK, RUN, due, promotable)
    for _, p in ipairs(due) do
      local moved = deltas['A' .. p.number] or 0
      p.available, p.waiting = p.available + moved, p.waiting - moved
      p.expiring = p.expiring + (deltas['E' .. p.number] or 0)
      if p.waiting > 0 then
        local first = redis.call('ZRANGE', p.due, 0, 0, 'WITHSCORES')
        if first[2] then
          look_at(tonumber(first[2]))
          if tonumber(first[2]) <= NOW + 2000 and not p.paused then due_soon = due_soon or p end
        end
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
    share_end()
    flush_stat(STAT)
    flush_events(EVENTS)
    return {'tend', #lost, expired}
  end
end

-- Claiming.
local zero6 = string.rep('\0', 6)
local fresh_token = math.max(NOW - CONST(epoch), 1)
local tail = string.char(#worker) .. worker
local claims, again, held, writes, gone = {}, {}, {}, {}, {}
local per = {}

-- head_of returns up to k entries of a queue's pairs in order: their ids, the entries of lines they come from (false: from
-- the sorted set), and their pairs.
local function head_of(q, k)
  local ids, elements, of, scores, sources = {}, {}, {}, {}, 0
  local n = 0
  for _, p in ipairs(q) do
    if p.available > 0 and not p.paused then
      p.line_at, p.back_at = p.line_at or 0, p.back_at or 0
      local back = redis.call('ZRANGE', p.back, p.back_at, p.back_at + k - 1, 'WITHSCORES')
      local line = redis.call('LRANGE', p.line, p.line_at, p.line_at + k - 1)
      if #back > 0 then sources = sources + 1 end
      if #line > 0 then sources = sources + 1 end
      for i = 1, #back, 2 do
        n = n + 1
        ids[n], elements[n], of[n], scores[n] = back[i], false, p, tonumber(back[i + 1])
      end
      for i = 1, #line do
        n = n + 1
        ids[n], elements[n], of[n] = PLACE_REST(line[i]), line[i], p
      end
    end
  end
  if sources < 2 then return ids, elements, of end
  local order = {}
  for i = 1, n do
    order[i] = i
    if elements[i] then scores[i] = CONST(plain) * CONST(band) + PLACE_NUM(elements[i], order) end
  end
  table.sort(order, function(a, b) return scores[a] < scores[b] end)
  local ids2, elements2, of2 = {}, {}, {}
  for i, from in ipairs(order) do
    ids2[i], elements2[i], of2[i] = ids[from], elements[from], of[from]
  end
  return ids2, elements2, of2
end

local zero12 = string.rep('\0', 12)
local fresh_token6 = pack('>I6', fresh_token)

-- fresh_run is the run of a task's first claim, in the short form: the same for all that are alike.
local function fresh_run(p, task, flags)
  local size
  if HAS(flags, expires) then
    size = #task - LATER_LEN - LATER_NUM(task, envelope)
  else
    size = #task - TASK_LEN - TASK_NUM(task, envelope)
  end
  local key = size * 256 + LASTING(flags)
  local rec = p.fresh[key]
  if not rec then
    rec = SHORT_MAKE(state = 'R', flags = string.char(FLAG(short) + LASTING(flags)), pair = TASK_BYTES(task, pair), token = fresh_token6,
      claimed = NOW6, size = pack('>I4', size)) .. tail
    p.fresh[key] = rec
  end
  return rec
end

-- claimed_again is the run of a task that was claimed or moved before.
local function claimed_again(task, run, flags)
  local token = math.max(RUN_NUM(run, token) + 1, fresh_token)
  return RUN_MAKE(state = 'R', flags__priority = TASK_BYTES(task, flags, priority), reason = '\0', due__order = RUN_BYTES(run, due, order),
    token = pack('>I6', token), claimed = NOW6, expires = HAS(flags, expires) and LATER_BYTES(task, expires) or zero6,
    attempt = pack('>I4', RUN_NUM(run, attempt) + 1), crashes = RUN_BYTES(run, crashes), ended__ran = zero12, size = RUN_BYTES(run, size)) .. tail
end

local function claim(p, mine, id, task, run, flags)
  local n = #held + 1
  local rec
  if run then
    rec = claimed_again(task, run, flags)
    again[#again + 1] = n
    again[#again + 1] = rec
  else
    rec = fresh_run(p, task, flags)
  end
  held[n] = id
  writes[n * 2 - 1], writes[n * 2] = id, rec
  claims[n * 2 - 1], claims[n * 2] = id, task
  mine.ids[#mine.ids + 1] = id
  if flags ~= 0 then
    if HAS(flags, expires) then mine.exp[#mine.exp + 1] = id end
    if HAS(flags, uniqueStart) then gone[#gone + 1] = id end
    if HAS(flags, keyed) and p.share then
      local name, weight = key_in(task)
      charge(p.share, name, p.numeric, weight)
      room = room - #task
      return
    end
  end
  if p.share then charge(p.share, '', p.numeric, 1) end
  room = room - #task
end

-- recount corrects the counters of pairs whose indexes have been read to their ends: entries that were lost or damaged
-- are counted but never found, and a worker that looks for them would not come to rest.
local function recount(q)
  for _, p in ipairs(q) do
    local claimed = per[p] and #per[p].ids or 0
    if p.available > claimed and not p.paused and not p.late then
      count('A' .. p.number, claimed - p.available)
      p.available = claimed
    end
  end
end

-- take claims the next task of a pair's line (element) or sorted set, if it is still there.
local function take(p, mine, id, element, task, run)
  if element then
    p.line_at = p.line_at + 1
  else
    p.back_at = p.back_at + 1
    table.insert(mine.back, id)
  end
  local moved_on = run and RUN_BYTES(run, state) ~= 'A' and not broken(nil, run)
  if not moved_on and broken(task, run) then
    damaged[#damaged + 1] = id
    p.available = p.available - 1
    count('A' .. p.number, -1)
    task = false
  end
  local there = task and (not run or RUN_BYTES(run, state) == 'A')
  if there and element then
    -- An entry of a line counts only if it stands for the task's present place.
    there = PLACE_BYTES(element, order) == (run and RUN_BYTES(run, order) or TASK_BYTES(task, seq))
  end
  if there then
    local flags = TASK_NUM(task, flags)
    local late = HAS(flags, expires) and LATER_NUM(task, expires) <= NOW
    p.late = p.late or late
    if not late then
      claim(p, mine, id, task, run, flags)
    elseif element then
      table.insert(mine.moved, CONST(plain) * CONST(band) + PLACE_NUM(element, order))
      table.insert(mine.moved, id)
    else
      table.remove(mine.back)
    end
  end
end

-- serve claims from one queue until want is met, its line is at its end, or the bound on work is reached.
local function serve(q)
  local rounds = 0
  while #held < want and room > 0 and rounds < 20 do
    rounds = rounds + 1
    local ids, elements, of = head_of(q, math.min(want - #held, 200))
    if #ids == 0 then
      recount(q)
      return
    end
    local k = math.min(#ids, want - #held, 200)
    local tasks, runs = redis.call('HMGET', TASK, unpack(ids, 1, k)), redis.call('HMGET', RUN, unpack(ids, 1, k))
    for i = 1, k do
      if room <= 0 then break end
      local id, element, p, task, run = ids[i], elements[i], of[i], tasks[i], runs[i]
      local mine = per[p]
      if not mine then
        mine = {ids = {}, exp = {}, back = {}, moved = {}}
        per[p] = mine
        p.fresh = {}
      end
      take(p, mine, id, element, task, run)
    end
  end
end

--@include serve

for _, q in ipairs(sharing) do
  regate_all(q.share)
  if share_tend(q.share, 100) then swept = false end
end
if want > 0 then
  for _, q in ipairs(queues) do
    if #held >= want or room <= 0 then break end
    if q.share then serve_shared(q, q.share) else serve(q) end
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
    if keys[i] then redis.call('HDEL', UNIQ, OWNED_REST(keys[i])) end
  end
  redis.call('HDEL', OWN, unpack(gone))
end

for _, id in ipairs(damaged) do
  claims[#claims + 1] = id
  claims[#claims + 1] = ''
end

for _, a in ipairs(aside) do flow_enter(unpack(a)) end
share_end()
local lacking = {}
for _, q in ipairs(sharing) do
  local first = first_opening(q.share)
  if first then look_at(first) end
  for _, p in ipairs(q) do
    local open, at = pair_opens(q.share, p.numeric)
    if not open and at > 0 and p.available > 0 then look_at(at) end
    if not open and p.available > 0 and not p.paused and lacking[#lacking] ~= q.index and pair_lacks(q.share, p.numeric) then
      local parked = tonumber(redis.call('HGET', q.share.share, 'k' .. p.number) or 0)
      if p.available > parked then lacking[#lacking + 1] = q.index end
    end
  end
end

-- waits reports whether a task of a pair is left that could be claimed.
local function waits(p)
  if p.available <= 0 or p.paused then return false end
  return not p.share or pair_ready(p.share, p.numeric, p.available)
end

-- plain_left is how many tasks of a pair are left that have no key.
local function plain_left(p)
  return p.available - tonumber(redis.call('HGET', p.share.share, 'f' .. p.number) or 0)
end

local left, woken, left_tag, capped, others = swept and 0 or 1, {}, '', 0, 0
for _, q in ipairs(sharing) do
  if q.share.capped then capped = 1 end
end
for i, p in ipairs(all) do
  if waits(p) then
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
if left == 1 and ARGV[10] ~= '1' then
  -- What is left in the slots is compared by its priority.
  local least, lowest = 201, nil
  for _, p in ipairs(all) do
    if waits(p) then
      local back = redis.call('ZRANGE', p.back, 0, 0, 'WITHSCORES')
      local prio = back[2] and math.floor(tonumber(back[2]) / CONST(band)) or CONST(plain)
      if prio > CONST(plain) and redis.call('LLEN', p.line) > 0 then prio = CONST(plain) end
      local top = p.share and top_of(p.share, p.numeric)
      local tag, plain = p.share and plain_tag(p.share), p.share and plain_left(p) > 0
      if plain then others = 2 end
      if top and (HEAD_NUM(top, priority) < prio or tag and first_tag(p.share, top) < tag or not plain) then
        prio, tag = HEAD_NUM(top, priority), first_tag(p.share, top)
      end
      if prio < least or prio == least and tag and (not lowest or tag < lowest) then least, lowest = prio, tag end
    end
  end
  left_tag = lowest and digits(lowest) or ''
  left = 1 + least
end
if left == 0 and ARGV[10] == '1' and #all > 0 then
  -- Tokens of pairs in which nothing waits would wake somebody for nothing.
  local tokens = {}
  for i, p in ipairs(all) do
    tokens[#tokens + 1] = p.wake
    if ARGV[12] == '1' then tokens[#tokens + 1] = p.wake_any end
  end
  redis.call('DEL', unpack(tokens))
end
if left == 0 and due_soon and want > 0 and #held >= want then
  -- A worker that has all it wanted may have no room when the next task is due: another is to know of that.
  if wake_here then
    wake(due_soon.wake)
    if tonumber(head[4] or 0) > NOW then wake(due_soon.wake_any) end
  else
    woken[#woken + 1] = due_soon.index
  end
end
local first = redis.call('ZRANGEBYSCORE', WORKERS, '(1', '+inf', 'WITHSCORES', 'LIMIT', 0, 2)
for i = 1, #first, 2 do
  if first[i] ~= worker then look_at(tonumber(first[i + 1])) end
end

local plans, over, forgotten, plans_left = {}, {}, {}, 0
if ARGV[13] ~= '' then
  local DUE, OUTDUE = KEYS[12], KEYS[14]
  local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, ARGV[13] + 1)
  if #due > 0 then
    local heads = redis.call('HMGET', KEYS[11], unpack(due))
    for i, ref in ipairs(due) do
      local h = heads[i]
      if not h then
        redis.call('ZREM', DUE, ref)
      elseif PLAN_NUM(h, expires) ~= 0 and PLAN_NUM(h, expires) <= NOW then
        over[#over + 1] = ref
      elseif #plans < tonumber(ARGV[13]) then
        plans[#plans + 1] = ref
        local reserved = NOW + CONST(reserve)
        redis.call('HSET', KEYS[11], ref, PLAN_WITH(h, reserved, pack('>I6', reserved)))
        if PLAN_NUM(h, expires) ~= 0 and PLAN_NUM(h, expires) < reserved then reserved = PLAN_NUM(h, expires) end
        redis.call('ZADD', DUE, reserved, ref)
      else
        plans_left = 1
      end
    end
  end
  local next_plan = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  if next_plan[2] then look_at(tonumber(next_plan[2])) end
  local out = redis.call('ZRANGE', OUTDUE, 0, 9, 'WITHSCORES')
  for i = 1, #out, 2 do
    if tonumber(out[i + 1]) <= NOW then forgotten[#forgotten + 1] = out[i] else look_at(tonumber(out[i + 1])) end
  end
  if ARGV[10] == '1' then
    if plans_left == 1 then wake(KEYS[13]) else redis.call('DEL', KEYS[13]) end
  end
end
local cancels = redis.call('HGETALL', CANCEL)
flush_stat(STAT)
flush_events(EVENTS)
return {'ok', NOW, soonest, left, cancels, claims, fresh_token, again, woken, plans, over, forgotten, plans_left, lacking, left_tag, capped + others}
