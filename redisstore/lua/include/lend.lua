-- The ledger of a queue's home: see lend_share.lua. Needs head, record and share. g:SCOPE of share/QUEUE has version and most
-- active of each shard but the home, after a ! if the limits have changed since; w:SCOPE how many slots and starts the home keeps for others, and
-- until when.

-- even_parts notes in the ledger what each shard would have of a limit that is shared out evenly by what they could use.
local function even_parts(most, ledger)
  local order = {}
  for s, g in ipairs(ledger) do order[s] = g end
  table.sort(order, function(a, b) return a.demand < b.demand end)
  for i, g in ipairs(order) do
    g.part = math.min(g.demand, math.floor(most / (#order - i + 1)))
    most = most - g.part
  end
end

-- lend_quota enters the reports of the shards and lends what is left of a limit of concurrency to those that need more. It
-- reports whether some need more still.
local function lend_quota(q, l, r, shard_count, first, loans, home)
  local ledger, sum, s = {}, 0, 0
  for version, most in string.gmatch(redis.call('HGET', q.share, 'g:' .. l.scope) or '', '(%d+)=(%d+),') do
    s = s + 1
    ledger[s] = {version = tonumber(version), most = tonumber(most)}
  end
  for s = 1, shard_count do
    local g = ledger[s] or {version = 0, most = 0}
    ledger[s] = g
    if s == home then
      g.version, g.most, g.home = 0, held_of(q, l), true
    elseif r[s].version >= g.version then
      g.version, g.most = r[s].version, r[s].most
    else
      g.lent = true -- the loan may not have come there
    end
    sum = sum + g.most
    g.demand = r[s].active + r[s].waiting
  end
  even_parts(l.most, ledger)
  local own = ledger[home] -- what is the home's part it may use at any time
  sum = sum - own.most
  own.most = math.max(own.most, math.min(own.part, l.most - sum))
  sum = sum + own.most
  for s, g in ipairs(ledger) do g.needs = math.max(g.demand - g.most, 0) end
  local left, needy = l.most - sum, shard_count
  while left > 0 and needy > 0 do
    needy = 0
    for i = 0, shard_count - 1 do
      if ledger[(first + i) % shard_count + 1].needs > 0 then needy = needy + 1 end
    end
    if needy == 0 then break end
    local part = math.max(math.floor(left / needy), 1)
    for i = 0, shard_count - 1 do
      local s = (first + i) % shard_count + 1
      local g = ledger[s]
      local n = math.min(part, g.needs, left)
      if n > 0 then
        g.most, g.needs, left, g.more = g.most + n, g.needs - n, left - n, true
      end
    end
  end
  local text, lacking, keep = {}, false, 0
  for s = 1, shard_count do
    local g = ledger[s]
    if g.more and not g.home then g.version, g.lent = math.max(g.version, r[s].version) + 1, true end
    if g.lent then
      for _, v in ipairs({s - 1, l.scope, g.version, g.most, l.most, 0, 0, '-'}) do loans[#loans + 1] = v end
    end
    r[s].quota, r[s].lacks = g.most, g.needs > 0
    lacking = lacking or g.needs > 0
    if not g.home then keep = keep + math.max(g.part - g.most, 0) end
    text[s] = g.home and '0=0,' or digits(g.version) .. '=' .. digits(g.most) .. ','
  end
  redis.call('HSET', q.share, 'g:' .. l.scope, table.concat(text))
  if own.most > held_of(q, l) then keep = math.min(keep, math.max(left, 0)) end -- it may use now what it was just given
  l.keep = keep
  return lacking and left <= 0
end

-- keep_for_others notes what the home is to leave to the shards that lack something.
local function keep_for_others(q, l)
  local slots, starts = l.keep or 0, l.keep_starts or 0
  redis.call('HSET', q.share, 'w:' .. l.scope, table.concat({digits(slots), digits(starts), digits(NOW + 1000)}, ' '))
end

-- pass_by takes tasks that the limit of their type keeps out of what waits for the limit of the queue: others may have its slots.
local function pass_by(q, l, r, of, shard_count, first)
  local all, left = of['*'], math.huge
  if l.scope == '*' or not all then return end
  if l.most > 0 then
    left = l.most
    for s = 1, shard_count do left = left - r[s].active end
  end
  if l.interval > 0 then
    local at = opens_at(l, tonumber(redis.call('HGET', q.share, 'a:' .. l.rate) or 0))
    local conform = at <= NOW and math.floor((NOW - at) / l.interval) + 1 or 0
    for s = 1, shard_count do conform = conform + r[s].permits end
    left = math.min(left, conform, l.burst)
  end
  for i = 0, shard_count - 1 do
    local s = (first + i) % shard_count + 1
    local n = math.max(math.min(r[s].waiting, left), 0)
    left = left - n
    all[s].waiting = math.max(all[s].waiting - (r[s].waiting - n), 0)
  end
end

-- give_way names shards that have had much for a while, as many as there are others that have nothing and need something. It
-- reports whether there are such.
local function give_way(q, l, r, shard_count, patience, yield, home)
  local poor, rich = 0, {}
  for s = 1, shard_count do
    if r[s].lacks and r[s].quota == 0 then poor = poor + 1 end
    local unused = s == home and held_of(q, l) < r[s].quota -- it has only just got that
    if r[s].quota > 0 and not unused then rich[#rich + 1] = s end
  end
  local since = tonumber(redis.call('HGET', q.share, 't:' .. l.scope) or 0)
  if poor == 0 then return false end
  if NOW - since < patience then return true end
  redis.call('HSET', q.share, 't:' .. l.scope, digits(NOW))
  table.sort(rich, function(a, b) return r[a].quota > r[b].quota end)
  for i = 1, math.min(poor, #rich) do
    if rich[i] == home then
      l.keep = (l.keep or 0) + r[home].quota
    else
      yield[#yield + 1] = rich[i] - 1
      yield[#yield + 1] = l.scope
    end
  end
  return true
end

-- lend_permits lends permits of a rate for up to want tasks, and returns when the rate opens for the next, 0 if none waits.
local function lend_permits(q, l, r, of, shard_count, want, first, loans, home)
  local arrival, needs, total = tonumber(redis.call('HGET', q.share, 'a:' .. l.rate) or 0), {}, 0
  for s = 1, shard_count do
    local n = r[s].waiting - r[s].permits
    for scope, other in pairs(of) do -- what may not start for another reason would waste a permit
      if other[s].quota and (scope == l.scope or scope == '*') then
        n = math.min(n, other[s].quota - other[s].active - r[s].permits)
      end
    end
    needs[s] = math.max(n, 0)
    total = total + needs[s]
  end
  if total == needs[home] then return 0 end -- it starts them itself
  local given, s = {}, first % shard_count + 1
  local changed = false
  while want > 0 and total > 0 and opens_at(l, arrival) <= NOW do
    while needs[s] == 0 do s = s % shard_count + 1 end
    arrival, changed = started(l, arrival), true
    given[s] = (given[s] or 0) + 1
    needs[s], total, want = needs[s] - 1, total - 1, want - 1
    s = s % shard_count + 1
  end
  if changed then
    redis.call('HSET', q.share, 'a:' .. l.rate, string.format('%.17g', arrival))
    local version = redis.call('HINCRBY', q.share, 'loans', 1)
    for s, n in pairs(given) do
      for _, v in ipairs({s - 1, l.scope, 0, '', l.most, n, version, l.rate}) do loans[#loans + 1] = v end
    end
  end
  l.keep_starts = total - needs[home] > 0 and 1 or 0
  if total > 0 then return opens_at(l, arrival) end
  return 0
end
