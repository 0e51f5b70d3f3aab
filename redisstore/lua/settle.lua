#!lua flags=allow-oom
-- Settles completed attempts.
--
-- KEYS meta run result own uniq stat events held/WORKER cancel/WORKER task plan plannews plandue planwake
-- KEYS each pair: kept/C/QUEUE
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, worker, where it ran (length and host, length and build), number of pairs, for each: number, subject, queue,
--      number of groups of settlements that are alike, for each: index of its pair, token and running time as >I6 each,
--      how many they are, their packed ids (all ids of a call are different); number of shared queues (see include/share.lua,
--      their keys follow the others), for each: its name, how many pairs it has, their numbers; then for each settlement with a result: its
--      place in this order, encoding byte and result.
-- RETURNS the places of the settlements whose lease is lost; then for each pair how many completed tasks its queue keeps; then 1
--      if a plan was told; then the numbers of pairs of which something may start now; then the places of settlements that were
--      accepted before. Or WAGGLESTALE: a queue has become shared.
--@include head
--@include events
--@include stat
--@include record
--@include run
--@include wake
--@include plan
--@include planname
--@include share

local RUN, RESULT, OWN, UNIQ, STAT, EVENTS, HELD, CANCEL = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local worker, where, pair_count = ARGV[6], ARGV[7], tonumber(ARGV[8])
local tail = string.char(#worker) .. worker
local ending = tail .. where

local pairs_of, at = {}, 8
for p = 1, pair_count do
  pairs_of[p] = {number = ARGV[at + 1], numeric = tonumber(ARGV[at + 1]), subject = ARGV[at + 2], queue = ARGV[at + 3],
    ids = {}, kept = {}, bytes = 0}
  at = at + 3
end
local groups, ids, n = {}, {}, 0
at = at + 1
for g = 1, tonumber(ARGV[at]) do
  local count = tonumber(ARGV[at + 4])
  groups[g] = {p = pairs_of[tonumber(ARGV[at + 1])], token = ARGV[at + 2], ran = ARGV[at + 3], count = count}
  at = at + 4
  for i = 1, count do
    ids[n + i] = ARGV[at + i]
  end
  n = n + count
  at = at + count
end
local share_named, sharing = {}, {}
at = at + 1
for i = 1, tonumber(ARGV[at]) do
  local q = share_at(14 + pair_count + (i - 1) * SHARE_KEYS)
  local n = tonumber(ARGV[at + 2])
  q.numbers = {unpack(ARGV, at + 3, at + 2 + n)}
  share_named[ARGV[at + 1]], sharing[i] = q, q
  at = at + 2 + n
end
for _, p in ipairs(pairs_of) do
  p.share, p.keyed = share_named[p.queue], {}
end
local result_of = {}
for i = at + 1, #ARGV, 2 do
  result_of[tonumber(ARGV[i])] = ARGV[i + 1]
end

local runs = redis.call('HMGET', RUN, unpack(ids))
local refused, repeated, writes, results, owners, cancelled, done, planned, plan_results = {}, {}, {}, {}, {}, {}, {}, {}, {}

-- Many tasks of a claim have the same run to the byte, so each is looked at once: seen[run] is what it says.
local seen = {}

local function look(run)
  local r = read_run(run)
  if not r then return nil end
  r.mine = r.tail == tail or sub(r.tail, 1, #tail) == tail
  r.completed = {}
  seen[run] = r
  return r
end

-- completed_run returns the run of a task completed after ran (>I6), with size bytes of payload and result.
local function completed_run(r, run, ran, size4)
  if r.short then
    return DONE_MAKE(state = 'C', flags = string.char(FLAG(short, settled) + LASTING(r.flags)), pair__claimed = SHORT_BYTES(run, pair, claimed),
      size = size4, ended = NOW6, ran = ran) .. ending
  end
  return RUN_MAKE(state = 'C', flags = string.char(FLAG(settled) + LASTING(r.flags)), pair__crashes = RUN_BYTES(run, pair, crashes),
    ended = NOW6, ran = ran, size = size4) .. ending
end

local i = 0
for _, g in ipairs(groups) do
  local p, token, ran = g.p, g.token, g.ran
  local own_ids, kept, bytes = p.ids, p.kept, 0
  for _ = 1, g.count do
    i = i + 1
    local run = runs[i]
    local r = run and (seen[run] or look(run))
    if r and r.token == token and r.mine and r.pair == p.numeric and r.state == 'R' then
      local id, result, size, new = ids[i], result_of[i], r.size, nil
      if result then
        size = size + #result - 1
        new = completed_run(r, run, ran, pack('>I4', size))
        results[#results + 1] = id
        results[#results + 1] = result
      else
        new = r.completed[ran]
        if not new then
          new = completed_run(r, run, ran, pack('>I4', size))
          r.completed[ran] = new
        end
      end
      local k = #done + 1
      done[k] = id
      writes[k * 2 - 1] = id
      writes[k * 2] = new
      local flags = r.flags
      if flags ~= 0 then
        if HAS(flags, uniqueDone) then owners[#owners + 1] = id end
        if HAS(flags, plan) then
          planned[#planned + 1] = id
          plan_results[#planned] = result or '-'
        end
        if HAS(flags, cancel) then cancelled[#cancelled + 1] = id end
        if HAS(flags, keyed) then
          if not p.share then return redis.error_reply('WAGGLESTALE a queue is shared out') end
          if p.share.counts_held then p.keyed[#p.keyed + 1] = id end
        end
      end
      k = #own_ids + 1
      own_ids[k] = id
      kept[k] = KEPT_MAKE(ended = NOW6) .. id
      bytes = bytes + size
    elseif r and r.token == token and r.mine and r.pair == p.numeric and HAS(r.flags, settled) then
      repeated[#repeated + 1] = i -- it was settled before, under this token
    else
      refused[#refused + 1] = i
    end
  end
  p.bytes = p.bytes + bytes
end

local kept, woken = {}, {}
if #done > 0 then
  redis.call('HSET', RUN, unpack(writes))
  redis.call('SREM', HELD, unpack(done))
  if #results > 0 then redis.call('HSET', RESULT, unpack(results)) end
  if #cancelled > 0 then redis.call('HDEL', CANCEL, unpack(cancelled)) end
  if #owners > 0 then
    local keys = redis.call('HMGET', OWN, unpack(owners))
    for k = 1, #owners do
      if keys[k] and OWNED_NUM(keys[k], mode) == 1 then
        redis.call('HDEL', UNIQ, OWNED_REST(keys[k]))
        redis.call('HDEL', OWN, owners[k])
      end
    end
  end
  for index, p in ipairs(pairs_of) do
    kept[index] = 0
    if #p.ids > 0 then
      redis.call('RPUSH', KEYS[14 + index], unpack(p.kept))
      count('R' .. p.number, -#p.ids)
      count('C' .. p.number, #p.ids)
      count('c' .. p.number, #p.ids)
      if p.bytes > 0 then count('bC' .. p.queue, p.bytes) end
      kept[index] = redis.call('HINCRBY', STAT, 'nC' .. p.queue, #p.ids)
      emit('completed', p.subject, '', p.ids)
      if #p.keyed > 0 and p.share then
        local tasks, names = redis.call('HMGET', KEYS[10], unpack(p.keyed)), {}
        for i, task in ipairs(tasks) do names[i] = task and (key_in(task)) or '' end
        keys_read(p.share, names)
        for _, task in ipairs(tasks) do
          if task then key_hold(p.share, key_in(task), p.numeric, -1) end
        end
      end
    end
  end
  for _, q in ipairs(sharing) do
    regate_all(q)
    share_limits(q, STAT, q.numbers)
    share_freed(q, STAT)
  end
  woken = share_end()
  flush_stat(STAT)
  flush_events(EVENTS)
end

-- Plans are told in the order of the settlements.
if #planned > 0 then
  local encodings, told, order = {j = 'json', r = 'raw'}, {}, {}
  local tasks = redis.call('HMGET', KEYS[10], unpack(planned))
  for i, id in ipairs(planned) do
    local ref, step
    if tasks[i] then ref, step = plan_of(tasks[i]) end
    if ref then
      if not told[ref] then
        told[ref] = {}
        order[#order + 1] = ref
      end
      local result = plan_results[i]
      table.insert(told[ref], 'T\0' .. text(id) .. text(step) .. text('completed') .. text('') .. text('')
        .. text(encodings[RESULT_BYTES(result, encoding)] or '') .. text(RESULT_REST(result)))
    end
  end
  for _, ref in ipairs(order) do tell(KEYS[11], KEYS[12], KEYS[13], KEYS[14], ref, told[ref]) end
end
return {refused, kept, #planned > 0 and 1 or 0, woken, repeated}
