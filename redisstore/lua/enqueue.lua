#!lua
-- Stores new tasks, all in one step.
--
-- KEYS meta task run uniq own hold ord stat events
-- KEYS each pair: line/PAIR back/PAIR due/PAIR exp/PAIR wake/QUEUE/TYPE wake/QUEUE/
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- KEYS each guard: any
-- ARGV head, 1 if wake tokens live in this slot,
--      number of evicted owners, for each: its id,
--      number of guards and their writes (see include/guarded.lua) that evict those owners,
--      number of pairs, for each: number, subject,
--      'plain' if all tasks are of one pair, with different ids, no options, priority 0 and no expiry, 'fresh' if their ids
--      were moreover made for this very call, else 'any', or 'share', after which for each pair comes how many keys there are
--      before those of its queue (see include/share.lua), '' if it has none; for each task: packed id and body, with 'any' before the id the
--      index of its pair and after it options. Before 'any' or 'share' may come 'bounded' and what include/bound.lua reads.
--      options: '' or OPTIONS of LAYOUT.md: flags (1 hold, 2 not before at, 4 the queue takes no tasks, 8 unique, 16 not to be
--      refused by a bound), at, conflict
--      (1 return, 2 reject, 3 replace), until (1 done, 2 started, 3 ttl), ttl in ms, then the unique key.
--      body: the record from its flags on, BODY or LATERBODY of LAYOUT.md.
-- RETURNS one letter a task (state of a new task; E known id, U unique key taken, D duplicate, Q queue closed, F queue full);
--      a flat list for E, U and D: index, packed id and state of the task that is there;
--      the indices of the pairs to be woken, if the tokens live elsewhere. Or 'lapsed' and the owners of unique keys that
--      have expired: the caller records that first. Or WAGGLERETRY: an owner to be evicted moved.
--@include head
--@include events
--@include stat
--@include wake
--@include record
--@include plan
--@include share
--@include guarded

local TASK, RUN, UNIQ, OWN, HOLD, ORD, STAT, EVENTS = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
--@include bound
local at = 6
local function arg()
  at = at + 1
  return ARGV[at]
end

local wake_here = ARGV[6] == '1'
local evicted, evictees, spared = {}, {}, {}
for o = 1, tonumber(arg()) do
  evictees[o] = arg()
  evicted[evictees[o]] = o
end
local guards
guards, at = read_guarded(at)
local pair_count = tonumber(arg())
local numbers, subjects = {}, {}
for p = 1, pair_count do
  numbers[p], subjects[p] = arg(), arg()
end
local kind, share_of = arg(), {}
if kind == 'bounded' then
  at = read_bounds(at, pair_count, evictees)
  kind = arg()
end
if kind == 'share' then
  kind = 'any'
  for p = 1, pair_count do
    local keys_before = tonumber(arg())
    if keys_before then share_of[p] = share_at(keys_before) end
  end
end
local first_task = at
local stride = kind == 'any' and 4 or 2
local n = (#ARGV - at) / stride
if n == 0 then return {'', {}, {}} end

local ids, keys, key_of = {}, {}, {}
if kind == 'any' then
  for i = 1, n do
    local base = first_task + (i - 1) * 4
    ids[i] = ARGV[base + 2]
    local options = ARGV[base + 3]
    if #options > OPTIONS_LEN then
      keys[#keys + 1] = OPTIONS_REST(options)
      key_of[i] = #keys
    end
  end
else
  for i = 1, n do
    ids[i] = ARGV[first_task + i * 2 - 1]
  end
end

-- body_of, index_of and options_of are what a task's arguments say.
local function body_of(i)
  return ARGV[first_task + i * stride]
end

local function index_of(i)
  return kind == 'any' and tonumber(ARGV[first_task + i * 4 - 3]) or 1
end

local function options_of(i)
  return kind == 'any' and ARGV[first_task + i * 4 - 1] or ''
end

-- store_plain stores tasks that are simply to be put in line; most are.
local function store_plain()
  local seq = redis.call('HINCRBY', META, 'seq', n) - n
  local tasks, line = {}, {}
  for i = 1, n do
    local id, seq6 = ids[i], pack('>I6', seq + i)
    tasks[i * 2 - 1] = id
    tasks[i * 2] = STAMP_MAKE(enqueued = NOW6, seq = seq6) .. ARGV[first_task + i * 2]
    line[i] = PLACE_MAKE(order = seq6) .. id
  end
  redis.call('HSET', TASK, unpack(tasks))
  redis.call('RPUSH', ORD, unpack(line))
  redis.call('RPUSH', KEYS[10], unpack(line))
  if wake_here then
    wake(KEYS[14])
    if tonumber(head[4] or 0) > NOW then wake(KEYS[15]) end
  end
  count('A' .. numbers[1], n)
  count('e' .. numbers[1], n)
  emit('available', subjects[1], '', ids)
  flush_stat(STAT)
  flush_events(EVENTS)
  return {string.rep('A', n), {}, wake_here and {} or {1}}
end

-- A call is one step: if it was executed before (a request can come twice), then its first task is there.
if kind == 'fresh' and redis.call('HEXISTS', TASK, ids[1]) == 0 then return store_plain() end
local known = redis.call('HMGET', TASK, unpack(ids))
if kind ~= 'any' then
  local new = true
  for i = 1, n do
    if known[i] then new = false end
  end
  if new then return store_plain() end
end

local owners = {}
if #keys > 0 then owners = redis.call('HMGET', UNIQ, unpack(keys)) end

-- state_of returns the state of a task at the present, and whether it has expired, which is not recorded yet.
local function state_of(id)
  local state, due, expires = 'A', 0, 0
  local run = redis.call('HGET', RUN, id)
  if run then
    state = RUN_BYTES(run, state)
    if #run < RUN_LEN or not string.find('AST', state, 1, true) then return state, false end
    due = RUN_NUM(run, due)
    if HAS(RUN_NUM(run, flags), expires) then expires = RUN_NUM(run, expires) end
  else
    local task = redis.call('HGET', TASK, id)
    if not task then return '-', false end
    if #task >= LATER_LEN and HAS(TASK_NUM(task, flags), expires) then expires = LATER_NUM(task, expires) end
  end
  if due > NOW then return state, false end
  if expires > 0 and expires <= NOW then return 'D', true end
  return 'A', false
end

-- First decide all, then write.
local letters, there, plan = {}, {}, {}
local new_state, new_owner = {}, {}

-- owner_of returns who owns the unique key of task i, or nil.
local function owner_of(i)
  local k = key_of[i]
  if not k then return nil end
  if new_owner[keys[k]] then return new_owner[keys[k]] end
  local o = owners[k]
  if not o then return nil end
  if OWNER_NUM(o, mode) == 3 and OWNER_NUM(o, until) <= NOW then return nil end
  return OWNER_REST(o)
end

local function refuse(i, letter, id)
  letters[i] = letter
  there[#there + 1] = i
  there[#there + 1] = id
  there[#there + 1] = new_state[id] or (state_of(id))
end

for i = 1, #owners do
  if owners[i] and OWNER_NUM(owners[i], mode) >= 8 then return redis.error_reply('WAGGLEREMOTE an owner is in another shard') end
end

local retry, lapsed = false, {}
for i = 1, n do
  local id, options = ids[i], options_of(i)
  local flags, start, conflict, mode, ttl = 0, 0, 0, 0, 0
  if options ~= '' then
    flags, start, conflict = OPTIONS_NUM(options, flags), OPTIONS_NUM(options, start), OPTIONS_NUM(options, conflict)
    mode, ttl = OPTIONS_NUM(options, mode), OPTIONS_NUM(options, ttl)
  end
  local owner = owner_of(i)
  if known[i] or new_state[id] then
    refuse(i, 'E', id)
  elseif flags % 8 >= 4 then
    letters[i] = 'Q'
  elseif owner and not new_state[owner] and OWNER_NUM(owners[key_of[i]], mode) < 3 and select(2, state_of(owner)) then
    lapsed[#lapsed + 1] = owner
  elseif owner and conflict == 1 then
    refuse(i, 'U', owner)
  elseif owner and conflict == 2 then
    refuse(i, 'D', owner)
  else
    local taken = false
    if owner and not evicted[owner] then
      local state = new_state[owner] or state_of(owner)
      if state == 'R' then
        taken = true
      elseif string.find('ASPT', state, 1, true) then
        retry = true
      end
    end
    if taken then
      refuse(i, 'D', owner)
    elseif not has_room(bound_of[index_of(i)], owner and evicted[owner] and owner, flags % 32 >= 16) then
      letters[i] = 'F'
      if owner and evicted[owner] then spared[evicted[owner]] = true end
    else
      local state = 'A'
      if flags % 2 == 1 then state = 'P' elseif flags % 4 >= 2 and start > NOW then state = 'S' end
      letters[i], new_state[id] = state, state
      if evicted[owner] then new_state[owner] = 'X' end -- what comes later in the call finds it cancelled
      if key_of[i] then new_owner[keys[key_of[i]]] = id end
      plan[#plan + 1] = {i = i, id = id, p = index_of(i), state = state, start = start, mode = mode, ttl = ttl}
    end
  end
end
if #lapsed > 0 then return {'lapsed', lapsed, {}} end
if retry or not guarded_hold(guards) then return redis.error_reply('WAGGLERETRY an owner has moved') end

-- Now write.
if next(spared) then
  local left = {}
  for o, item in ipairs(guards) do
    if not spared[o] then left[#left + 1] = item end
  end
  guards = left
end
guarded_write(guards)
guarded_end()
local woken = {}
if #plan > 0 then
  local seq = redis.call('HINCRBY', META, 'seq', #plan) - #plan
  local tasks, order, runs, claims, owned, held = {}, {}, {}, {}, {}, {}
  local per = {}
  local names_of = {}
  for _, t in ipairs(plan) do
    local share, body = share_of[t.p], body_of(t.i)
    if share and t.state == 'A' and HAS(BODY_NUM(body, flags), keyed) then
      names_of[share] = names_of[share] or {}
      table.insert(names_of[share], (key_in(string.rep('\0', STAMP_LEN) .. body)))
    end
  end
  for share, names in pairs(names_of) do keys_read(share, names) end
  for _, t in ipairs(plan) do
    seq = seq + 1
    local body = body_of(t.i)
    local seq6 = pack('>I6', seq)
    local element = PLACE_MAKE(order = seq6) .. t.id
    tasks[#tasks + 1] = t.id
    tasks[#tasks + 1] = STAMP_MAKE(enqueued = NOW6, seq = seq6) .. body
    order[#order + 1] = element
    local p = per[t.p]
    if not p then
      p = {A = {}, S = {}, P = {}, line = {}, back = {}, due = {}, exp = {}}
      per[t.p] = p
    end
    local list = p[t.state]
    list[#list + 1] = t.id
    local flags, prio = BODY_NUM(body, flags), BODY_NUM(body, priority)
    local expiring = HAS(flags, expires)
    local expires = expiring and LATERBODY_BYTES(body, expires) or string.rep('\0', 6)
    if t.state == 'A' then
      local share, name = share_of[t.p], ''
      if HAS(flags, keyed) then name = key_in(tasks[#tasks]) end
      if share and (name ~= '' or share.order == 'deadline') then
        flow_enter(share, name, tonumber(numbers[t.p]), prio, expiring and LATERBODY_NUM(body, expires) or 0, seq6, t.id, false, true)
      elseif prio == CONST(plain) then
        p.line[#p.line + 1] = element
      else
        p.back[#p.back + 1] = prio * CONST(band) + seq
        p.back[#p.back + 1] = t.id
      end
      if expiring then
        p.exp[#p.exp + 1] = LATERBODY_NUM(body, expires)
        p.exp[#p.exp + 1] = t.id
      end
    else
      local due = NOW
      if t.state == 'S' then due = t.start end
      local size = expiring and #body - LATERBODY_LEN - LATERBODY_NUM(body, envelope) or #body - BODY_LEN - BODY_NUM(body, envelope)
      runs[#runs + 1] = t.id
      runs[#runs + 1] = RUN_MAKE(state = t.state, flags__priority = BODY_BYTES(body, flags, priority), reason = '\0', due = pack('>I6', due),
        order = seq6, token__claimed = string.rep('\0', 12), expires = expires, attempt__ran = string.rep('\0', 20),
        size = pack('>I4', size)) .. '\0'
      if t.state == 'S' then
        p.due[#p.due + 1] = due
        p.due[#p.due + 1] = t.id
      else
        held[#held + 1] = t.id
      end
    end
    if t.mode > 0 then
      local key = keys[key_of[t.i]]
      local before = owners[key_of[t.i]]
      if before then redis.call('HDEL', OWN, OWNER_REST(before)) end
      claims[#claims + 1] = key
      claims[#claims + 1] = OWNER_MAKE(mode = string.char(t.mode), until = pack('>I6', t.mode == 3 and NOW + t.ttl or 0)) .. t.id
      owned[#owned + 1] = t.id
      owned[#owned + 1] = OWNED_MAKE(mode = string.char(t.mode)) .. key
    end
  end
  redis.call('HSET', TASK, unpack(tasks))
  redis.call('RPUSH', ORD, unpack(order))
  if #runs > 0 then redis.call('HSET', RUN, unpack(runs)) end
  if #held > 0 then redis.call('SADD', HOLD, unpack(held)) end
  if #claims > 0 then
    redis.call('HSET', UNIQ, unpack(claims))
    redis.call('HSET', OWN, unpack(owned))
  end
  local any = tonumber(head[4] or 0) > NOW
  for index = 1, pair_count do
    local p = per[index]
    if p then
      local number, base = numbers[index], 9 + (index - 1) * 6
      local rouse = #p.line + #p.back > 0
      if share_of[index] then
        regate_all(share_of[index])
        rouse = rouse or share_of[index].news[tonumber(number)]
      end
      if #p.line > 0 then redis.call('RPUSH', KEYS[base + 1], unpack(p.line)) end
      if #p.back > 0 then redis.call('ZADD', KEYS[base + 2], unpack(p.back)) end
      if #p.exp > 0 then
        redis.call('ZADD', KEYS[base + 4], unpack(p.exp))
        count('E' .. number, #p.exp / 2)
      end
      if #p.due > 0 then
        local first = redis.call('ZRANGE', KEYS[base + 3], 0, 0, 'WITHSCORES')
        redis.call('ZADD', KEYS[base + 3], unpack(p.due))
        for k = 1, #p.due, 2 do
          if not first[2] or p.due[k] < tonumber(first[2]) then rouse = true end
        end
      end
      if rouse then
        if wake_here then
          wake(KEYS[base + 5])
          if any then wake(KEYS[base + 6]) end
        else
          woken[#woken + 1] = index
        end
      end
      count('A' .. number, #p.A)
      count('S' .. number, #p.S)
      count('P' .. number, #p.P)
      count('e' .. number, #p.A + #p.S + #p.P)
      emit('available', subjects[index], '', p.A)
      emit('scheduled', subjects[index], '', p.S)
      emit('pending', subjects[index], '', p.P)
    end
  end
end
share_end()
flush_stat(STAT)
flush_events(EVENTS)
return {table.concat(letters), there, woken}
