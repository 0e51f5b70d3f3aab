-- damaged are the ids of tasks that were found in an index and whose records can't be read. They are taken out of it, so
-- that they hold up nobody; the caller discards them.
local damaged = {}

-- broken tells records that this script could not take apart: the task's, if it is not nil, and the run's.
local function broken(task, run)
  if task and (#task < TASK_LEN or (HAS(TASK_NUM(task, flags), expires) and #task < LATER_LEN)) then return true end
  if not run then return false end
  local letter = RUN_BYTES(run, state)
  if #run > 1 and HAS(RUN_NUM(run, flags), short) then
    return #run <= SHORT_LEN or not string.find('RC', letter, 1, true)
  end
  return #run <= RUN_LEN or not string.find('ASPRTCXD', letter, 1, true)
end

-- due_now returns the due tasks that come first, as a list of pair, id and time by turns, at most limit of them and no more read from
-- the indexes: of each pair an even part, and of those with more what the others leave. till is up to when all that is due has been read.
local function due_now(pairs_due, limit)
  local list, open, room, at, last = {}, pairs_due, limit, {}, {}
  while #open > 0 and room > 0 do
    local most, more = math.max(math.floor(room / #open), 1), {}
    for _, p in ipairs(open) do
      local n = math.min(most, room)
      local ids = n > 0 and redis.call('ZRANGEBYSCORE', p.due, '-inf', NOW, 'WITHSCORES', 'LIMIT', at[p] or 0, n) or {}
      for i = 1, #ids, 2 do
        list[#list + 1] = p
        list[#list + 1] = ids[i]
        last[p] = tonumber(ids[i + 1])
        list[#list + 1] = last[p]
      end
      room, at[p] = room - #ids / 2, (at[p] or 0) + #ids / 2
      if #ids / 2 == n then more[#more + 1] = p end
    end
    open = more
  end
  local till = math.huge
  for _, p in ipairs(open) do
    local upto = last[p] or tonumber(redis.call('ZRANGE', p.due, 0, 0, 'WITHSCORES')[2]) -- of the last pairs none may have been read
    till = math.min(till, upto or math.huge)
  end
  return list, till
end

-- promote moves due tasks of pairs into their lines, in the order in which they are due. Needs head, events, stat, record, share.
--
-- pairs is a list of {number =, due = key, line = key, back = key, exp = key, subject =, share =}; at most limit tasks are moved.
-- RETURNS how many.
local function promote(TASK, RUN, pairs_due, limit)
  if limit <= 0 then return 0 end
  local found, ids, sorted = {}, {}, true
  local list, till = due_now(pairs_due, limit)
  for i = 2, #list, 3 do ids[#ids + 1] = list[i] end
  if #ids == 0 then return 0 end
  for _, p in ipairs(pairs_due) do p.found = 0 end
  for i, run in ipairs(redis.call('HMGET', RUN, unpack(ids))) do
    local p, id = list[3 * i - 2], ids[i]
    if not run or broken(nil, run) then
      redis.call('ZREM', p.due, id)
      damaged[#damaged + 1] = id
    elseif list[3 * i] <= till then
      local f, last = {id = id, run = run, order = RUN_NUM(run, order), due = RUN_NUM(run, due), p = p}, found[#found]
      if last and (f.due < last.due or f.due == last.due and f.order < last.order) then sorted = false end
      found[#found + 1], p.found = f, p.found + 1
    end
  end
  if #found == 0 then return 0 end
  if not sorted then
    table.sort(found, function(a, b)
      if a.due ~= b.due then return a.due < b.due end
      return a.order < b.order
    end)
  end
  local moved = math.min(#found, limit)
  local seq = redis.call('HINCRBY', META, 'seq', moved) - moved
  local writes, per = {}, {}
  for i = 1, moved do
    local f = found[i]
    seq = seq + 1
    local q = per[f.p]
    if not q then
      q = {ids = {}, line = {}, back = {}, exp = {}, retried = 0}
      per[f.p] = q
    end
    local order6 = pack('>I6', seq)
    local prio, flags = RUN_NUM(f.run, priority), RUN_NUM(f.run, flags)
    local share, name = f.p.share, ''
    if HAS(flags, keyed) and share then
      name = key_in(redis.call('HGET', TASK, f.id))
      if share.ordered then order6 = RUN_BYTES(f.run, order) end
      if RUN_NUM(f.run, token) > 0 then key_wait(share, name, -1) end
    end
    if RUN_BYTES(f.run, state) == 'T' then q.retried = q.retried + 1 end
    writes[#writes + 1] = f.id
    writes[#writes + 1] = 'A' .. RUN_BYTES(f.run, flags, due) .. order6 .. RUN_FROM(f.run, token)
    q.ids[#q.ids + 1] = f.id
    if share and (name ~= '' or share.order == 'deadline') then
      flow_enter(share, name, tonumber(f.p.number), prio, HAS(flags, expires) and RUN_NUM(f.run, expires) or 0, order6, f.id)
    elseif prio == CONST(plain) then
      q.line[#q.line + 1] = PLACE_MAKE(order = order6) .. f.id
    else
      q.back[#q.back + 1] = prio * CONST(band) + seq
      q.back[#q.back + 1] = f.id
    end
    if HAS(flags, expires) then
      q.exp[#q.exp + 1] = RUN_NUM(f.run, expires)
      q.exp[#q.exp + 1] = f.id
    end
  end
  redis.call('HSET', RUN, unpack(writes))
  for p, q in pairs(per) do
    if #q.ids == p.found then -- they are the first that there are
      redis.call('ZREMRANGEBYRANK', p.due, 0, p.found - 1)
    else
      redis.call('ZREM', p.due, unpack(q.ids))
    end
    count('T' .. p.number, -q.retried)
    count('S' .. p.number, q.retried - #q.ids)
    if #q.line > 0 then redis.call('RPUSH', p.line, unpack(q.line)) end
    if #q.back > 0 then redis.call('ZADD', p.back, unpack(q.back)) end
    if #q.exp > 0 then
      redis.call('ZADD', p.exp, unpack(q.exp))
      count('E' .. p.number, #q.exp / 2)
    end
    count('A' .. p.number, #q.ids)
    emit('available', p.subject, '', q.ids)
  end
  return moved
end
