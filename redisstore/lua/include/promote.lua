-- damaged are the ids of tasks that were found in an index and whose records can't be read. They are taken out of it, so
-- that they hold up nobody; the caller discards them.
local damaged = {}

-- broken tells records that this script could not take apart: the task's, if it is not nil, and the run's.
local function broken(task, run)
  if task and (#task < 20 or (string.byte(task, 13) % 2 == 1 and #task < 26)) then return true end
  if not run then return false end
  local letter = string.sub(run, 1, 1)
  if #run > 1 and math.floor(string.byte(run, 2) / 32) % 2 == 1 then -- the short form
    return #run <= 21 or not string.find('RC', letter, 1, true)
  end
  return #run <= 61 or not string.find('ASPRTCXD', letter, 1, true)
end

-- promote moves due tasks of pairs into their lines. Needs head, events, stat.
--
-- pairs is a list of {number =, due = key, line = key, back = key, exp = key, subject =}; at most limit tasks are moved.
-- RETURNS how many.
local function promote(RUN, pairs_due, limit)
  local found = {}
  for _, p in ipairs(pairs_due) do
    local ids = redis.call('ZRANGEBYSCORE', p.due, '-inf', NOW, 'LIMIT', 0, limit)
    if #ids > 0 then
      local runs = redis.call('HMGET', RUN, unpack(ids))
      for i = 1, #ids do
        local run = runs[i]
        if not run or broken(nil, run) then
          redis.call('ZREM', p.due, ids[i])
          damaged[#damaged + 1] = ids[i]
        else
          local due, order = struct.unpack('>I6I6', run, 8)
          found[#found + 1] = {id = ids[i], run = run, order = order, due = due, p = p}
        end
      end
    end
  end
  if #found == 0 then return 0 end
  table.sort(found, function(a, b)
    if a.due ~= b.due then return a.due < b.due end
    if a.order ~= b.order then return a.order < b.order end
    return false
  end)
  local moved = math.min(#found, limit)
  local seq = redis.call('HINCRBY', META, 'seq', moved) - moved
  local writes, per = {}, {}
  for i = 1, moved do
    local f = found[i]
    seq = seq + 1
    local q = per[f.p]
    if not q then
      q = {ids = {}, line = {}, back = {}, exp = {}}
      per[f.p] = q
    end
    local order6 = struct.pack('>I6', seq)
    local prio, flags = string.byte(f.run, 6), string.byte(f.run, 2)
    count(string.sub(f.run, 1, 1) .. f.p.number, -1)
    writes[#writes + 1] = f.id
    writes[#writes + 1] = 'A' .. string.sub(f.run, 2, 13) .. order6 .. string.sub(f.run, 20)
    q.ids[#q.ids + 1] = f.id
    if prio == 100 then
      q.line[#q.line + 1] = order6 .. f.id
    else
      q.back[#q.back + 1] = prio * 17592186044416 + seq
      q.back[#q.back + 1] = f.id
    end
    if flags % 2 == 1 then
      q.exp[#q.exp + 1] = struct.unpack('>I6', f.run, 32)
      q.exp[#q.exp + 1] = f.id
    end
  end
  redis.call('HSET', RUN, unpack(writes))
  for p, q in pairs(per) do
    redis.call('ZREM', p.due, unpack(q.ids))
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
