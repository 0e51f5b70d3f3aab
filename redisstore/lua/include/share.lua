-- What shares a queue out between keys, and what holds tasks back: see docs/decisions/0008. Needs head, stat and record.
--
-- A queue has five keys once one of its tasks has a key, or its configuration says more than that it is paused:
--
--   keyed  hash: what is known of a key: LONE of LAYOUT.md if one available task is all that it has, else the text of key_text
--   share  hash: conf (order and mode of keys; whole, or where there are several shards home or part; then a line a limit), gen (of conf), sweep (where the look at all keys for a
--          new conf goes on), virtual, plain (the tag of tasks without a key), flowing (tasks in flows), fPAIR (those of a
--          pair), kPAIR (those of them that are parked), hPAIR (active tasks with a key, where they are counted), counted (the gen from which on
--          they are), a:RATE (the arrival of a rate limit of the queue or a type);
--          where there are several shards, q:SCOPE, p:SCOPE, g:SCOPE and w:SCOPE, see include/lend.lua
--   opens  zset: key -> when its rate opens, in ms
--   rest   zset: key without tasks -> its tag, which is ahead of virtual; it is all that is known of it
--   flow   zset, lexicographic: key NUL pair priority rank order id, of each available task that has a key and is not the only one
--   heads  zset, lexicographic: pair priority value order key, of each flow that is not parked; value is the tag or the rank. Behind the key
--          of a lone task are NUL and its id: it stands nowhere else
--
-- Active tasks of a key are counted only where something depends on it: an order of keys, or a limit for each.

local SHARE_KEYS = 6
local no_deadline = 281474976710655

local function digits(n) return string.format('%.0f', n) end

-- share_conf reads the configuration as setqueue stores it.
local function share_conf(q, text)
  q.order, q.mode, q.limits, q.key_limits = 'fair', 'free', {}, {}
  for line in string.gmatch(text or '', '[^\n]+') do
    local order, mode, part = string.match(line, '^(%a+) (%a+) (%a+)$')
    if order then
      q.order, q.mode, q.part, q.home = order, mode, part ~= 'whole', part == 'home'
    else
      local pair, per_key, most, interval, burst, rate, scope = string.match(line, '^(%d+) (%d) (%d+) (%S+) (%d+) (%S+) (%S+)$')
      local l = {scope = scope, pair = tonumber(pair), most = tonumber(most), interval = tonumber(interval), burst = tonumber(burst), rate = rate}
      if per_key == '1' then q.key_limits[#q.key_limits + 1] = l else q.limits[#q.limits + 1] = l end
    end
  end
  q.ordered = q.mode == 'hold' or q.mode == 'pass'
  q.counts_held = q.ordered or #q.key_limits > 0
  q.lone = not q.counts_held and q.order == 'fair'
end

local shares = {}

-- share_open returns the state of a queue with these keys, in their order.
local function share_open(keyed, share, opens, rest, flow, heads)
  local q = shares[keyed]
  if q then return q end
  q = {keyed = keyed, share = share, opens = opens, rest = rest, flow = flow, heads = heads,
    keys = {}, touched = {}, news = {}, changed = {}, counts = {}, numbers = {}, active = {}, arrivals = {},
    later = {keyed = {}, rest = {}, heads = {}, flow = {}}, fresh = {}, ahead_task = {}, ahead_run = {}, absent = {}, texts = {}}
  shares[keyed] = q
  local v = redis.call('HMGET', q.share, 'conf', 'virtual', 'plain', 'flowing', 'gen', 'sweep', 'counted')
  share_conf(q, v[1])
  q.virtual, q.plain, q.flowing, q.gen, q.sweep = tonumber(v[2] or 0), tonumber(v[3] or 0), tonumber(v[4] or 0), v[5] or '0', v[6]
  q.counted, q.was_virtual, q.was_plain = tonumber(v[7] or 0), q.virtual, q.plain
  return q
end

-- share_write does what waits to be written to one of the structures of keys: q.later has by structure what each member is to be, a
-- text or a score, and false for one that goes. So what many keys change is few commands.
local function share_write(q, name)
  local members, kept, gone = q.later[name], {}, {}
  if not next(members) then return end
  q.later[name] = {}
  local hash = name == 'keyed'
  for member, value in pairs(members) do
    if value == false then
      gone[#gone + 1] = member
    else
      kept[#kept + 1] = hash and member or value
      kept[#kept + 1] = hash and value or member
    end
  end
  for from = 1, #kept, 2000 do redis.call(hash and 'HSET' or 'ZADD', q[name], unpack(kept, from, math.min(from + 1999, #kept))) end
  for from = 1, #gone, 2000 do redis.call(hash and 'HDEL' or 'ZREM', q[name], unpack(gone, from, math.min(from + 1999, #gone))) end
end

-- share_at opens the one whose keys are KEYS[at + 1] to KEYS[at + SHARE_KEYS].
local function share_at(at) return share_open(unpack(KEYS, at + 1, at + SHARE_KEYS)) end

-- read_lent reads what a shard that is one of several may start of a limit. It is lent to it by the home of the queue: see
-- lend_share.lua. q:SCOPE has a version and the most tasks that may be active here, p:SCOPE a version, how many tasks may start, and
-- until when.
local function read_lent(q, l)
  local v = redis.call('HMGET', q.share, 'q:' .. l.scope, 'p:' .. l.scope)
  local version, quota = string.match(v[1] or '0 0', '(%d+) (%d+)')
  l.version, l.quota = tonumber(version), tonumber(quota)
  local permitted, permits, till = string.match(v[2] or '0 0 0', '(%d+) (%d+) (%d+)')
  l.permitted, l.permits, l.till = tonumber(permitted), tonumber(permits), tonumber(till)
  if l.till <= NOW then l.permits = 0 end
end

-- read_own reads what the home of a queue may start of a limit itself: all that it has not lent, but for what it keeps for shards
-- that lack something. Nothing before all shards have told what they have.
local function read_own(q, l)
  read_lent(q, l)
  local v = redis.call('HMGET', q.share, 'g:' .. l.scope, 'w:' .. l.scope)
  l.lent = 0
  for most in string.gmatch(v[1] or '', '=(%d+),') do l.lent = l.lent + tonumber(most) end
  local slots, starts, till = string.match(v[2] or '0 0 0', '(%d+) (%d+) (%d+)')
  l.others = tonumber(slots) + tonumber(starts) > 0
  if tonumber(till) <= NOW then slots, starts = 0, 0 end
  l.quota = math.max(l.most - l.lent - slots, 0)
  if not v[1] or string.byte(v[1]) == 33 then l.quota = 0 end
  l.margin = starts * l.interval
end

-- held_of counts the active tasks here that a limit of the queue or of a type concerns.
local function held_of(q, l)
  if l.pair ~= 0 then return q.active[l.pair] or 0 end
  local n = 0
  for _, held in pairs(q.active) do n = n + held end
  return n
end

-- share_limits reads what counts against the limits of the queue and of types. numbers are those of all its pairs.
local function share_limits(q, STAT, numbers)
  q.numbers = numbers
  for _, l in ipairs(q.limits) do
    if q.home then read_own(q, l) elseif q.part then read_lent(q, l) end
    if l.interval > 0 and (q.home or not q.part) then
      q.arrivals[l.rate] = tonumber(redis.call('HGET', q.share, 'a:' .. l.rate) or 0)
    end
  end
  if #q.limits == 0 then return end
  local fields = {}
  for i, n in ipairs(numbers) do fields[i] = 'R' .. n end
  for from = 1, #fields, 4000 do
    for i, v in ipairs(redis.call('HMGET', STAT, unpack(fields, from, math.min(from + 3999, #fields)))) do
      local n = numbers[from + i - 1]
      q.active[tonumber(n)] = tonumber(v or 0) + (deltas['R' .. n] or 0)
    end
  end
end

-- share_count adds to a counter of the queue, count_pair to one that it has for each pair.
local function share_count(q, field, n) q.counts[field] = (q.counts[field] or 0) + n end

local fields_of_pairs = {f = {}, k = {}, h = {}}

local function count_pair(q, letter, pair, n)
  local field = fields_of_pairs[letter][pair]
  if not field then
    field = letter .. pair
    fields_of_pairs[letter][pair] = field
  end
  q.counts[field] = (q.counts[field] or 0) + n
end

local function head_entry(f, value, order, name)
  return HEAD_MAKE(pair = pack('>I3', f.pair), priority = string.char(f.prio), value = pack('>I7', value), order = pack('>I6', order)) .. name
end

-- holds_count reports whether a key's text of that gen tells how many of its tasks are active.
local function holds_count(q, gen) return q.counts_held and tonumber(gen) >= q.counted end

local lone_form, no_rank = byte('L'), pack('>I6', 0)

-- key_read makes of a key's text what is known of it. Without a text, its tag is that of a key that rests, if it is one.
local function key_read(q, name, text, tag)
  local k = {name = name, tag = 0, waiting = 0, opens = 0, rests = false, gen = q.gen, held = {}, flows = {}, rates = {}}
  q.keys[name] = k
  if not text then
    if tag then k.tag, k.rests = tonumber(tag), true end
    return k
  end
  if byte(text) == lone_form and #text > LONE_LEN then
    local f = {pair = LONE_NUM(text, pair), prio = LONE_NUM(text, priority), n = 1, value = LONE_NUM(text, value), order = LONE_NUM(text, order), lone = true}
    f.shown = LONE_BYTES(text, pair, order) .. name .. '\0' .. LONE_REST(text)
    local entry = FLOWING_MAKE(pair__priority = LONE_BYTES(text, pair, priority), rank = no_rank, order = LONE_BYTES(text, order)) .. LONE_REST(text)
    f.first, f.alone, f.same = {entry, name .. '\0' .. entry}, true, true
    k.there, k.tag, k.gen, k.flows[1] = true, f.value, '0', f
    return k
  end
  -- Most keys have one flow and nothing else, or tasks of one type that are active.
  local tag, gen, pair, prio, n, value, order = string.match(text, '^(%d+) 0 0 (%d+)  (%d+)/(%d+)/(%d+)/(%d+):(%d+), $')
  if tag then
    local f = {pair = tonumber(pair), prio = tonumber(prio), n = tonumber(n), value = tonumber(value), order = tonumber(order)}
    f.shown, f.same = head_entry(f, f.value, f.order, name), true
    k.there, k.tag, k.gen, k.flows[1] = true, tonumber(tag), gen, f
    return k
  end
  tag, gen, pair, n = string.match(text, '^(%d+) 0 0 (%d+) (%d+)=(%d+),  $')
  if tag then
    k.there, k.tag, k.gen = true, tonumber(tag), gen
    if holds_count(q, gen) then k.held[tonumber(pair)] = tonumber(n) end
    return k
  end
  local waiting, opens, held, flows, rates
  tag, waiting, opens, gen, held, flows, rates = string.match(text, '^(%d+) (%d+) (%d+) (%d+) ([^ ]*) ([^ ]*) ([^ ]*)$')
  if not tag then return k end
  k.there, k.tag, k.waiting, k.opens, k.gen = true, tonumber(tag), tonumber(waiting), tonumber(opens), gen
  if held ~= '' and holds_count(q, k.gen) then
    for pair, n in string.gmatch(held, '(%d+)=(%d+),') do k.held[tonumber(pair)] = tonumber(n) end
  end
  for pair, prio, n, shown in string.gmatch(flows, '(%d+)/(%d+)/(%d+)/([%d:]*),') do
    local f = {pair = tonumber(pair), prio = tonumber(prio), n = tonumber(n)}
    if shown ~= '' then
      local value, order = string.match(shown, '(%d+):(%d+)')
      f.value, f.order = tonumber(value), tonumber(order)
      f.shown, f.same = head_entry(f, f.value, f.order, name), true
    else
      f.parked = true
    end
    k.flows[#k.flows + 1] = f
  end
  if rates ~= '' then
    for rate, at in string.gmatch(rates, '([^=,]+)=([^,]+),') do k.rates[rate] = tonumber(at) end
  end
  return k
end

-- key_of returns what is known of a key; it is written back by share_flush if it was touched.
local function key_of(q, name)
  if q.keys[name] then return q.keys[name] end
  local text, tag = q.texts[name], q.absent[name]
  if not text and not tag then
    text = redis.call('HGET', q.keyed, name)
    tag = not text and redis.call('ZSCORE', q.rest, name)
  end
  return key_read(q, name, text, tag ~= 0 and tag)
end

-- keys_read does that for many keys at once. Where keys may be lone it makes nothing of them yet: q.texts has their texts, and q.absent
-- the tags of those that have none.
local function keys_read(q, names)
  local list, seen = {}, {}
  for _, name in ipairs(names) do
    if not q.keys[name] and not q.texts[name] and not q.absent[name] and not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  for from = 1, #list, 1000 do
    local some, idle = {unpack(list, from, math.min(from + 999, #list))}, {}
    for i, text in ipairs(redis.call('HMGET', q.keyed, unpack(some))) do
      if not text then idle[#idle + 1] = some[i] elseif q.lone then q.texts[some[i]] = text else key_read(q, some[i], text) end
    end
    if #idle > 0 then
      for i, tag in ipairs(redis.call('ZMSCORE', q.rest, unpack(idle))) do
        if q.lone then q.absent[idle[i]] = tonumber(tag or 0) else key_read(q, idle[i], false, tag) end
      end
    end
  end
end

local function flow_text(f)
  return f.pair .. '/' .. f.prio .. '/' .. f.n .. '/' .. (f.shown and digits(f.value) .. ':' .. digits(f.order) or '') .. ','
end

local function key_text(k)
  local f = k.flows[1]
  if f and f.lone then return LONE_MAKE(form = 'L', pair__order = HEAD_BYTES(f.shown, pair, order)) .. FLOWING_REST(f.first[1]) end
  local pair, n = next(k.held)
  if k.waiting == 0 and k.opens == 0 and not next(k.rates) and #k.flows < 2 and (not pair or not next(k.held, pair)) then
    return digits(k.tag) .. ' 0 0 ' .. k.gen .. ' ' .. (pair and pair .. '=' .. n .. ',' or '') .. ' ' .. (k.flows[1] and flow_text(k.flows[1]) or '') .. ' '
  end
  local held, flows, rates = {}, {}, {}
  for pair, n in pairs(k.held) do held[#held + 1] = pair .. '=' .. n .. ',' end
  for i, f in ipairs(k.flows) do flows[i] = flow_text(f) end
  for rate, at in pairs(k.rates) do rates[#rates + 1] = rate .. '=' .. string.format('%.17g', at) .. ',' end
  return table.concat({digits(k.tag), k.waiting, digits(k.opens), k.gen, table.concat(held), table.concat(flows), table.concat(rates)}, ' ')
end

local function key_active(k)
  local n = 0
  for _, held in pairs(k.held) do n = n + held end
  return n
end

-- flow_prefix is what the entries of a flow begin with.
local function flow_prefix(name, pair) return name .. '\0' .. pack('>I3', pair) end

local function flow_member(name, pair, prio, rank, order6, id)
  return name .. '\0' .. FLOWING_MAKE(pair = pack('>I3', pair), priority = string.char(prio), rank = pack('>I6', rank), order = order6) .. id
end

-- first_of returns the first entry of a flow, without the key and with it. The one after it is read too, for when the first is claimed.
local function first_of(q, name, f)
  if f.first then return f.first[1], f.first[2] end
  if f.second then
    f.first, f.second = {sub(f.second, #name + 2), f.second}, nil
    return f.first[1], f.first[2]
  end
  local prefix = flow_prefix(name, f.pair)
  if not f.popped then share_write(q, 'flow') end
  local from = f.popped and '(' .. f.popped or '[' .. prefix .. string.char(f.prio)
  local found = redis.call('ZRANGEBYLEX', q.flow, from, '(' .. prefix .. string.char(f.prio + 1), 'LIMIT', 0, 2)
  local m = found[1]
  if not m then return nil end
  f.first, f.second = {sub(m, #name + 2), m}, found[2]
  return f.first[1], m
end

-- tag_bytes returns a tag as records have it. Many tasks in a row have the same.
local packed_tag, packed_tag7

local function tag_bytes(tag)
  if tag ~= packed_tag then packed_tag, packed_tag7 = tag, pack('>I7', tag) end
  return packed_tag7
end

-- tag_digits returns a tag as a score.
local written_tag, written_digits

local function tag_digits(tag)
  if tag ~= written_tag then written_tag, written_digits = tag, digits(tag) end
  return written_digits
end

-- insert_sorted puts a text into a sorted list.
local function insert_sorted(list, text)
  local low, high = 1, #list + 1
  while low < high do
    local mid = math.floor((low + high) / 2)
    if list[mid] < text then low = mid + 1 else high = mid end
  end
  table.insert(list, low, text)
end

-- enter_lone puts a new task of a key that keys_read found nothing of where claims look, as the only one of its key.
local function enter_lone(q, name, pair, prio, order6, id)
  local rests = q.absent[name]
  local head = HEAD_MAKE(pair = pack('>I3', pair), priority = string.char(prio), value = tag_bytes(math.max(rests, q.virtual)), order = order6)
  local shown, text = head .. name .. '\0' .. id, LONE_MAKE(form = 'L', pair__order = head) .. id
  if rests > 0 then q.later.rest[name] = false end
  q.absent[name], q.texts[name] = nil, text
  q.later.keyed[name], q.later.heads[shown] = text, 0
  if q.fresh[pair] then insert_sorted(q.fresh[pair], shown) end
  q.flowing, q.changed[pair], q.news[pair] = q.flowing + 1, true, true
  count_pair(q, 'f', pair, 1)
end

-- unlone puts the task of a lone key into its flow: it is not to be the only one any more.
local function unlone(q, f)
  if not f.lone then return end
  q.later.flow[f.first[2]] = 0
  f.lone = nil
end

-- flow_enter puts an available task into its flow. returned says that it was given back, new that no flow can have it.
local function flow_enter(q, name, pair, prio, expires, order6, id, returned, new)
  if new and q.lone and q.absent[name] and not q.keys[name] then
    enter_lone(q, name, pair, prio, order6, id)
    return
  end
  local k, found = key_of(q, name), nil
  local rank = 0
  if q.order == 'deadline' then rank = expires > 0 and expires or no_deadline end
  local member = flow_member(name, pair, prio, rank, order6, id)
  for _, f in ipairs(k.flows) do
    if f.lone and f.first[2] == member then return end
    unlone(q, f)
  end
  if new then
    q.later.flow[member] = 0
  else
    share_write(q, 'flow')
    if redis.call('ZADD', q.flow, 0, member) == 0 then return end
  end
  if #k.flows == 0 then k.tag = math.max(k.tag, q.virtual) end
  for _, f in ipairs(k.flows) do
    if f.pair == pair and f.prio == prio then found = f end
  end
  if not found then
    found = {pair = pair, prio = prio, n = 0, parked = true}
    k.flows[#k.flows + 1] = found
  end
  local at = PLACE_NUM(order6, order)
  if not found.shown or q.order == 'deadline' and rank < found.value or at < found.order then found.same = nil end
  found.n, found.first, found.second, found.popped = found.n + 1, nil, nil, nil
  found.only = found.n == 1 and member or nil
  if found.parked then count_pair(q, 'k', pair, 1) else q.news[pair] = true end
  if returned then k.tag = math.min(k.tag, q.virtual) end
  q.flowing = q.flowing + 1
  count_pair(q, 'f', pair, 1)
  q.touched[name] = true
end

-- flow_leave takes it out.
local function flow_leave(q, name, pair, prio, expires, order6, id)
  local rank = 0
  if q.order == 'deadline' then rank = expires > 0 and expires or no_deadline end
  local k, member = key_of(q, name), flow_member(name, pair, prio, rank, order6, id)
  local f = k.flows[1]
  if f and f.lone and f.first[2] == member then
    f.lone = nil
  else
    share_write(q, 'flow')
    if redis.call('ZREM', q.flow, member) == 0 then return end
  end
  for _, f in ipairs(k.flows) do
    if f.pair == pair and f.prio == prio then
      f.n, f.only, f.first, f.second, f.popped, f.same = f.n - 1, nil, nil, nil, nil, nil
      if f.parked then count_pair(q, 'k', pair, -1) end
    end
  end
  q.flowing = q.flowing - 1
  count_pair(q, 'f', pair, -1)
  q.touched[name] = true
end

-- key_hold counts active tasks of a key, key_wait those that wait after they were claimed.
local function key_hold(q, name, pair, n)
  if name == '' or not q.counts_held then return end
  local held = key_of(q, name).held
  held[pair] = (held[pair] or 0) + n
  if held[pair] <= 0 then held[pair] = nil end
  count_pair(q, 'h', pair, n)
  q.touched[name] = true
end

local function key_wait(q, name, n)
  if name == '' then return end
  local k = key_of(q, name)
  k.waiting = math.max(k.waiting + n, 0)
  q.touched[name] = true
end

-- opens_at is when the next start conforms to a rate, see driver.Limit.Opens.
local function opens_at(l, arrival)
  return CONST(epoch) + math.ceil((arrival or 0) - (l.burst - 1) * l.interval)
end

local function started(l, arrival)
  return math.max(arrival or 0, NOW - CONST(epoch)) + l.interval
end

-- key_blocks reports whether nothing of a flow may start because of its key, and if only rates are in the way, when they
-- let it. firsts are the orders of the first tasks of the key's flows.
local function key_blocks(q, k, f, firsts)
  if k.name == '' then return false, 0 end
  if q.ordered then
    if next(k.held) or (q.mode == 'hold' and k.waiting > 0) then return true, 0 end
    for _, other in ipairs(k.flows) do
      if firsts[other] < firsts[f] then return true, 0 end
    end
  end
  local opens = 0
  for _, l in ipairs(q.key_limits) do
    if l.pair == 0 or l.pair == f.pair then
      local held = l.pair == 0 and key_active(k) or k.held[f.pair] or 0
      if l.most > 0 and held >= l.most then return true, 0 end
      if l.interval > 0 then opens = math.max(opens, opens_at(l, k.rates[l.rate])) end
    end
  end
  if opens <= NOW then return false, 0 end
  return true, opens
end

-- regate shows or parks the flows of a key, after anything has changed for it. q.news are the pairs of which something may
-- start now and could not before, q.changed those with other heads.
local function regate(q, name)
  local k, firsts, ranks, left = key_of(q, name), {}, {}, {}
  local opened = k.opens
  k.opens, k.gen = 0, q.gen
  q.touched[name] = nil
  for _, f in ipairs(k.flows) do
    local entry
    if f.only then -- it has just come, and is alone
      entry = sub(f.only, #name + 2)
    elseif f.n > 0 and not f.same then
      entry = first_of(q, name, f)
    end
    f.only = nil
    if f.n > 0 and f.same then -- it is the one that is shown
      firsts[f], ranks[f] = f.order, f.value
      left[#left + 1] = f
    elseif entry then
      firsts[f], ranks[f] = FLOWING_NUM(entry, order), FLOWING_NUM(entry, rank)
      left[#left + 1] = f
    elseif f.shown then
      q.later.heads[f.shown] = false
      q.changed[f.pair] = true
    end
  end
  k.flows = left
  if left[1] and left[1].lone and (not q.lone or k.waiting > 0 or next(k.rates)) then unlone(q, left[1]) end
  for _, f in ipairs(left) do
    local blocked, opens = key_blocks(q, k, f, firsts)
    local shown
    if not blocked then
      local value = q.order == 'deadline' and ranks[f] or k.tag
      if f.shown and f.value == value and f.order == firsts[f] and f.lone == f.alone then
        shown = f.shown
      else
        f.value, f.order, f.alone = value, firsts[f], f.lone
        shown = head_entry(f, value, f.order, name)
        if f.lone then shown = shown .. '\0' .. FLOWING_REST(f.first[1]) end
      end
    end
    if shown ~= f.shown then
      if f.shown then q.later.heads[f.shown] = false end
      if shown then
        q.later.heads[shown] = 0
        if q.fresh[f.pair] then insert_sorted(q.fresh[f.pair], shown) end
      end
      q.changed[f.pair] = true
    end
    if f.parked and shown then
      q.news[f.pair] = true
      count_pair(q, 'k', f.pair, -f.n)
    elseif not f.parked and not shown then
      count_pair(q, 'k', f.pair, f.n)
    end
    f.shown, f.parked, f.same = shown, not shown, shown ~= nil
    if opens > 0 and (k.opens == 0 or opens < k.opens) then k.opens = opens end
  end
  local idle = #left == 0 and k.waiting == 0 and not next(k.held)
  for rate, at in pairs(k.rates) do
    if CONST(epoch) + at < NOW then
      k.rates[rate] = nil
    elseif idle then
      k.opens = math.max(k.opens, CONST(epoch) + math.floor(at) + 1)
    end
  end
  if k.opens > 0 or opened > 0 then q.opening = nil end
  if k.opens > 0 then redis.call('ZADD', q.opens, k.opens, name) elseif opened > 0 then redis.call('ZREM', q.opens, name) end
  idle = idle and k.opens == 0
  local rests = idle and k.tag > q.virtual
  if rests then q.later.rest[name] = digits(k.tag) elseif k.rests then q.later.rest[name] = false end
  k.rests = rests
  if not idle then q.later.keyed[name] = key_text(k) elseif k.there then q.later.keyed[name] = false end
  k.there = not idle
end

-- regate_all does that for all keys that were touched.
local function regate_all(q)
  local names = {}
  for name in pairs(q.touched) do names[#names + 1] = name end
  for _, name in ipairs(names) do regate(q, name) end
end

-- first_opening returns when the first of the keys opens that wait for a rate, nil if there is none.
local function first_opening(q)
  if q.opening == nil then
    local first = redis.call('ZRANGE', q.opens, 0, 0, 'WITHSCORES')
    q.opening = tonumber(first[2]) or false
  end
  return q.opening or nil
end

-- share_tend looks at the keys whose rates have opened, and at all of them, piece by piece, after the configuration has changed. It
-- reports whether some of the last are left.
local function share_tend(q, limit)
  local opening = first_opening(q)
  if opening and opening <= NOW then
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', q.opens, '-inf', NOW, 'LIMIT', 0, limit)) do
      key_of(q, name)
      redis.call('ZREM', q.opens, name)
      q.opening = nil
      regate(q, name)
    end
  end
  if not q.sweep then return false end
  share_write(q, 'keyed')
  local page = redis.call('HSCAN', q.keyed, q.sweep, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    if not q.keys[page[2][i]] or q.keys[page[2][i]].gen ~= q.gen then regate(q, page[2][i]) end
  end
  q.sweep = page[1] ~= '0' and page[1] or nil
  redis.call('HSET', q.share, 'sweep', page[1])
  if not q.sweep then redis.call('HDEL', q.share, 'sweep') end
  return q.sweep ~= nil
end

-- pair_opens reports whether the limits of the queue and of the type let a task of a pair start, and if it is only a rate
-- that is in the way, when that opens.
local function pair_opens(q, pair)
  local at = 0
  for _, l in ipairs(q.limits) do
    if l.pair == 0 or l.pair == pair then
      if l.most > 0 and held_of(q, l) >= (q.part and math.min(l.most, l.quota) or l.most) then return false, 0 end
      if l.interval == 0 or q.part and l.permits > 0 then -- no rate is in the way
      elseif q.part and not q.home then return false, 0
      else at = math.max(at, opens_at(l, q.arrivals[l.rate] + (l.margin or 0))) end
    end
  end
  return at <= NOW, at
end

-- pair_lacks reports whether a task of a pair can't start because of what other shards have of a limit, or might have to give.
local function pair_lacks(q, pair)
  if not q.part then return false end
  for _, l in ipairs(q.limits) do
    if l.pair == 0 or l.pair == pair then
      if l.most > 0 and l.quota < l.most and held_of(q, l) >= l.quota then return true end
      if l.interval > 0 and not q.home and l.permits <= 0 then return true end
    end
  end
  return false
end

-- top_of returns the first entry of heads of a pair.
local function top_of(q, pair)
  share_write(q, 'heads')
  return redis.call('ZRANGEBYLEX', q.heads, '[' .. pack('>I3', pair), '(' .. pack('>I3', pair + 1), 'LIMIT', 0, 1)[1]
end

-- pair_ready reports whether a task of a pair may start. available is how many there are.
local function pair_ready(q, pair, available)
  if available <= 0 or not pair_opens(q, pair) then return false end
  local flowing = tonumber(redis.call('HGET', q.share, 'f' .. pair) or 0) + (q.counts['f' .. pair] or 0)
  return available > flowing or top_of(q, pair) ~= nil
end

-- share_freed notes in news the first pair of which a task may start, after a slot has become free; if there
-- is none here, less than zero: the number of any pair of the queue.
local function share_freed(q, STAT)
  if #q.limits == 0 then return end
  for _, n in ipairs(q.numbers) do
    local available = tonumber(redis.call('HGET', STAT, 'A' .. n) or 0) + (deltas['A' .. n] or 0)
    if pair_ready(q, tonumber(n), available) then
      q.news[tonumber(n)] = true
      return
    end
  end
  local others = not q.home
  for _, l in ipairs(q.limits) do others = others or l.others end
  if q.part and others and q.numbers[1] then q.news[-q.numbers[1]] = true end -- what is free may be of use in another shard
end

-- charge counts a start for what shares the queue out and for its rates. What is known of a key with one task, which is claimed, is
-- that it rests.
local function charge(q, name, pair, weight)
  q.active[pair] = (q.active[pair] or 0) + 1
  for _, l in ipairs(q.limits) do
    if q.part and l.interval > 0 and (l.permits > 0 or not q.home) and (l.pair == 0 or l.pair == pair) then
      l.permits, l.spent = l.permits - 1, true
    elseif l.interval > 0 and (l.pair == 0 or l.pair == pair) then
      q.arrivals[l.rate] = started(l, q.arrivals[l.rate])
      q.charged = true
    end
  end
  if name == '' then
    if q.order ~= 'deadline' and (q.flowing > 0 or q.spread) then
      local start = math.max(q.plain, q.virtual)
      q.plain, q.virtual, q.served = start + q.step, start, true
    end
    return
  end
  if q.lone and q.absent[name] and not q.keys[name] then
    local start = math.max(q.absent[name], q.virtual)
    local tag = start + math.floor(CONST(tag) / math.max(weight, 1))
    q.absent[name], q.virtual, q.served, q.later.rest[name] = tag, start, true, tag_digits(tag)
    return
  end
  local k = key_of(q, name)
  if q.order ~= 'deadline' then
    local start = math.max(k.tag, q.virtual)
    k.tag, q.virtual, q.served = start + math.floor(CONST(tag) / math.max(weight, 1)), start, true
  end
  for _, l in ipairs(q.key_limits) do
    if l.interval > 0 and (l.pair == 0 or l.pair == pair) then k.rates[l.rate] = started(l, k.rates[l.rate]) end
  end
  key_hold(q, name, pair, 1)
end

-- flow_pop takes the first task out of a flow that is to be claimed.
local function flow_pop(q, name, f, member)
  if f.lone then f.lone = nil else q.later.flow[member] = false end
  f.n, f.first, f.popped, f.same = f.n - 1, nil, member, nil
  if f.parked then count_pair(q, 'k', f.pair, -1) end
  q.flowing = q.flowing - 1
  count_pair(q, 'f', f.pair, -1)
  q.touched[name] = true
end

-- share_flush writes what has changed.
local function share_flush(q)
  regate_all(q)
  for name in pairs(q.later) do share_write(q, name) end
  local n = 0
  for field, d in pairs(q.counts) do
    if d ~= 0 then
      redis.call('HINCRBY', q.share, field, d)
      if string.byte(field) == 102 then n = n + d end
    end
  end
  q.counts = {}
  if n ~= 0 then redis.call('HINCRBY', q.share, 'flowing', n) end
  if q.served then -- keys whose tags are not ahead any more are forgotten
    local over = redis.call('ZRANGEBYSCORE', q.rest, '-inf', digits(q.virtual), 'LIMIT', 0, 1000)
    if #over > 0 then
      redis.call('ZREMRANGEBYRANK', q.rest, 0, #over - 1)
    elseif redis.call('ZCARD', q.rest) > CONST(resting) then
      q.virtual = q.virtual + CONST(tag) -- new keys alone would never move it on
    end
    q.served = false
  end
  if q.virtual ~= q.was_virtual or q.plain ~= q.was_plain then
    redis.call('HSET', q.share, 'virtual', digits(q.virtual), 'plain', digits(q.plain))
    q.was_virtual, q.was_plain = q.virtual, q.plain
  end
  for _, l in ipairs(q.limits) do
    if l.spent then redis.call('HSET', q.share, 'p:' .. l.scope, digits(l.permitted) .. ' ' .. digits(math.max(l.permits, 0)) .. ' ' .. digits(l.till)) end
  end
  if q.charged then
    for rate, at in pairs(q.arrivals) do redis.call('HSET', q.share, 'a:' .. rate, string.format('%.17g', at)) end
  end
end

-- key_reset replaces what is known of a key by a text in which all its flows are parked.
local function key_reset(q, name, text)
  regate_all(q)
  for _, f in ipairs(key_of(q, name).flows) do unlone(q, f) end
  for waiting in pairs(q.later) do share_write(q, waiting) end
  local function counted(k, n)
    for _, f in ipairs(k.flows) do
      if f.shown then redis.call('ZREM', q.heads, f.shown) end
      count_pair(q, 'f', f.pair, n * f.n)
      if f.parked then count_pair(q, 'k', f.pair, n * f.n) end
      q.flowing = q.flowing + n * f.n
    end
    for pair, held in pairs(k.held) do count_pair(q, 'h', pair, n * held) end
  end
  counted(key_of(q, name), -1)
  q.keys[name], q.texts[name], q.absent[name] = nil, nil, nil
  redis.call('HSET', q.keyed, name, text)
  counted(key_of(q, name), 1)
  q.touched[name] = true
end

-- share_end writes what has changed of all queues, and returns the numbers of the pairs of which something may start now and
-- could not before.
local function share_end()
  local woken = {}
  for _, q in pairs(shares) do
    share_flush(q)
    for pair in pairs(q.news) do woken[#woken + 1] = pair end
  end
  return woken
end

-- key_in returns key and weight of a task's record that has flag keyed: they stand at the end of its envelope. The key is
-- empty if the record is lost or damaged.
local function key_in(task)
  if not task or #task < TASK_LEN or (HAS(TASK_NUM(task, flags), expires) and #task < LATER_LEN) then return '', 1 end
  local expires = HAS(TASK_NUM(task, flags), expires)
  local last = (expires and LATER_LEN + LATER_NUM(task, envelope)) or TASK_LEN + TASK_NUM(task, envelope)
  if last > #task or last < TASK_LEN + KEYEND_LEN then return '', 1 end
  local tail = sub(task, last + 1 - KEYEND_LEN, last)
  return sub(task, last + 1 - #tail - KEYEND_NUM(tail, length), last - #tail), KEYEND_NUM(tail, weight)
end
