-- serve_shared claims from a queue that is shared out: see include/share.lua. It is part of fetch.lua.
local aside = {} -- tasks of flows that have expired, which is recorded in another step

-- next_plain returns what the next task of a pair's own line is ordered by, nil if there is none.
local function next_plain(s, p)
  local l = p.plain
  if not l or (l.at > #l.ids and not l.over) then
    l = {at = 1}
    p.plain = l
    l.ids, l.elements = head_of({p}, math.min(want - #held, 200))
    l.over = #l.ids == 0
    if not l.over then
      l.tasks, l.runs = redis.call('HMGET', TASK, unpack(l.ids)), redis.call('HMGET', RUN, unpack(l.ids))
    end
  end
  if l.over then return nil end
  local element, task, run = l.elements[l.at], l.tasks[l.at], l.runs[l.at]
  if not task or broken(task, run) then return '' end -- it is dealt with at once
  local order6 = element and PLACE_BYTES(element, order) or run and #run > RUN_LEN and RUN_BYTES(run, order) or TASK_BYTES(task, seq)
  return TASK_BYTES(task, priority) .. pack('>I7', s.plain) .. order6
end

local function claims_of(p)
  local mine = per[p]
  if not mine then
    mine = {ids = {}, exp = {}, back = {}, moved = {}}
    per[p] = mine
    p.fresh = {}
  end
  return mine
end

-- take_plain claims the next task of a pair's own line.
local function take_plain(p)
  local l = p.plain
  local i = l.at
  l.at = i + 1
  take(p, claims_of(p), l.ids[i], l.elements[i], l.tasks[i], l.runs[i])
end

local function flow_of(k, pair, prio)
  for _, f in ipairs(k.flows) do
    if f.pair == pair and f.prio == prio then return f end
  end
end

-- key_at returns the key that an entry of heads names, and the id of its task if that is the only one.
local function key_at(top)
  local nul = string.find(top, '\0', HEAD_LEN + 1, true)
  if nul then return sub(top, HEAD_LEN + 1, nul - 1), sub(top, nul + 1) end
  return HEAD_REST(top), nil
end

-- read_ahead reads what it takes to claim the tasks that entries of heads stand for, all at once.
local function read_ahead(s, p, list)
  local names, ids, tops = {}, {}, {}
  for _, top in ipairs(list) do
    local name, id = key_at(top)
    if id then
      ids[#ids + 1] = id
    else
      names[#names + 1], tops[#tops + 1] = name, top
    end
  end
  keys_read(s, names)
  for i, top in ipairs(tops) do
    local f = flow_of(key_of(s, names[i]), p.numeric, HEAD_NUM(top, priority))
    local entry = f and first_of(s, names[i], f)
    if entry then ids[#ids + 1] = FLOWING_REST(entry) end
  end
  if #ids == 0 then return end
  local tasks, runs = redis.call('HMGET', TASK, unpack(ids)), redis.call('HMGET', RUN, unpack(ids))
  for i, id in ipairs(ids) do s.ahead_task[id], s.ahead_run[id] = tasks[i], runs[i] end
end

-- next_top returns the first entry of heads of a pair. They are read many at a time; those that come meanwhile are in s.fresh.
local function next_top(s, p)
  local l, waiting = p.heads, s.later.heads
  while l and l.list[l.at] and waiting[l.list[l.at]] == false do l.at = l.at + 1 end
  if not l or not l.list[l.at] and l.more then
    share_write(s, 'heads')
    local n = math.min(want - #held, 200)
    l = {at = 1, list = redis.call('ZRANGEBYLEX', s.heads, '[' .. p.from, '(' .. p.till, 'LIMIT', 0, n)}
    l.more = #l.list == n
    p.heads, s.fresh[p.numeric], waiting = l, {}, s.later.heads
    read_ahead(s, p, l.list)
  end
  local first, fresh = l.list[l.at], s.fresh[p.numeric]
  while fresh[1] and waiting[fresh[1]] ~= 0 do table.remove(fresh, 1) end
  if first and (not fresh[1] or first < fresh[1]) then return first end
  return fresh[1]
end

-- take_lone claims the task of a lone key, if that is as simple as it mostly is.
local function take_lone(s, p, top, name, id)
  local task, run = s.ahead_task[id], s.ahead_run[id]
  if not s.lone or s.keys[name] or not task or broken(task, run) or run and RUN_BYTES(run, state) ~= 'A' then return false end
  local flags = TASK_NUM(task, flags)
  if HAS(flags, expires) and LATER_NUM(task, expires) <= NOW then return false end
  s.later.heads[top], s.later.keyed[name] = false, false
  s.texts[name], s.absent[name] = nil, HEAD_NUM(top, value)
  s.flowing, s.changed[p.numeric] = s.flowing - 1, true
  count_pair(s, 'f', p.numeric, -1)
  claim(p, claims_of(p), id, task, run, flags)
  return true
end

-- take_keyed claims the first task of the flow that an entry of heads stands for.
local function take_keyed(s, p, top)
  local prio = HEAD_NUM(top, priority)
  local name, lone = key_at(top)
  if lone and take_lone(s, p, top, name, lone) then return end
  local k, f = key_of(s, name), nil
  if k.gen ~= s.gen then
    regate(s, name) -- the configuration has changed since
    return
  end
  f = flow_of(k, p.numeric, prio)
  local entry, member
  if f then entry, member = first_of(s, name, f) end
  if not member then
    s.later.heads[top] = false
    s.changed[p.numeric] = true
    if f then
      f.same = nil
      regate(s, name)
    end
    return
  end
  local id = FLOWING_REST(entry)
  local task, run = s.ahead_task[id], s.ahead_run[id]
  if task == nil then task, run = redis.call('HGET', TASK, id), redis.call('HGET', RUN, id) end
  local moved_on = run and RUN_BYTES(run, state) ~= 'A' and not broken(nil, run)
  flow_pop(s, name, f, member)
  if not task or moved_on then
    regate(s, name)
    return
  end
  if broken(task, run) then
    damaged[#damaged + 1] = id
    p.available = p.available - 1
    count('A' .. p.number, -1)
    regate(s, name)
    return
  end
  local flags = TASK_NUM(task, flags)
  if HAS(flags, expires) and LATER_NUM(task, expires) <= NOW then
    p.late = true
    aside[#aside + 1] = {s, name, p.numeric, prio, LATER_NUM(task, expires), FLOWING_BYTES(entry, order), id}
  else
    claim(p, claims_of(p), id, task, run or nil, flags)
  end
  regate(s, name)
end

-- plain_tag and first_tag are the tags of the next tasks, those without a key and that of an entry of heads; nil where tags are
-- not what decides.
local function plain_tag(s)
  if s.order ~= 'deadline' then return math.max(s.plain, s.virtual) end
end

local function first_tag(s, top)
  if s.order ~= 'deadline' then return math.max(HEAD_NUM(top, value), s.virtual) end
end

-- ends reports whether the turn of the shard ends before a task, see turn.go.
local function ends(s, prio, tag)
  if s.end_tag > 0 and tag and tag >= s.end_tag and prio >= s.end_prio then
    s.capped = true
    return true
  end
  return false
end

-- serve_shared claims until want is met, nothing may start, or the bound on work is reached.
local function serve_shared(q, s)
  local rounds = 0
  while #held < want and room > 0 and rounds < 3000 do
    rounds = rounds + 1
    local best, from, plain
    for _, p in ipairs(q) do
      if p.available > 0 and not p.paused and pair_opens(s, p.numeric) then
        if p.top == nil or s.changed[p.numeric] then
          s.changed[p.numeric] = nil
          p.top = next_top(s, p) or false
        end
        if p.top then
          local rank = HEAD_BYTES(p.top, priority, order)
          if (not best or rank < best) and not ends(s, HEAD_NUM(p.top, priority), first_tag(s, p.top)) then best, from, plain = rank, p, false end
        end
        local rank = next_plain(s, p)
        if rank and (not best or rank < best) and not (rank ~= '' and ends(s, string.byte(rank), plain_tag(s))) then best, from, plain = rank, p, true end
      end
    end
    if not best then break end
    if plain then take_plain(from) else take_keyed(s, from, from.top) end
  end
  if #held >= want or room <= 0 or rounds >= 3000 then return end
  -- Tasks that are counted and were never found would keep workers from coming to rest: see recount.
  for _, p in ipairs(q) do
    if p.plain and p.plain.over and not p.late then
      local flowing = tonumber(redis.call('HGET', s.share, 'f' .. p.numeric) or 0) + (s.counts['f' .. p.numeric] or 0)
      local lost = p.available - (per[p] and #per[p].ids or 0) - flowing
      if lost > 0 then
        count('A' .. p.number, -lost)
        p.available = p.available - lost
      end
    end
  end
end
