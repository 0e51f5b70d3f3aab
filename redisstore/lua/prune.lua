#!lua flags=allow-oom
-- Removes ended tasks of one queue that are beyond retention, oldest first.
--
-- KEYS meta task run hist result news own stat ord old
-- KEYS each state: kept/STATE/QUEUE
-- ARGV head, queue, most tasks to remove, for each state: its letter, age in ms, count, bytes.
-- RETURNS tasks removed, 1 if more are beyond retention.
--@include head
--@include stat
--@include record
--@include run

local STAT, ORD, OLD = KEYS[8], KEYS[9], KEYS[10]
local queue, limit = ARGV[6], tonumber(ARGV[7])
local removed, more = 0, 0

-- Many tasks have the same run to the byte, so each is looked at once.
local seen = {}

local function look(run)
  local r = read_run(run)
  if not r then return nil end
  r.removed = 0
  seen[run] = r
  return r
end

local function forget(ids)
  for k = 2, 7 do
    if redis.call('HLEN', KEYS[k]) > 0 then redis.call('HDEL', KEYS[k], unpack(ids)) end
  end
  if redis.call('EXISTS', OLD) == 1 then redis.call('ZREM', OLD, unpack(ids)) end
end

-- prune_state removes from the head of one kept list. Entries whose task has moved on since are dropped with it.
local function prune_state(KEPT, state, age, most, bytes_most)
  local v = redis.call('HMGET', STAT, 'n' .. state .. queue, 'b' .. state .. queue)
  local kept, bytes = tonumber(v[1] or 0), tonumber(v[2] or 0)
  local oldest = NOW - age
  local rounds = 0
  while removed < limit and rounds < 20 do
    rounds = rounds + 1
    local window = math.min(limit - removed, 200)
    if most >= 0 then window = math.min(window, math.max(kept - most, 10 * rounds)) end
    local list = redis.call('LRANGE', KEPT, 0, window - 1)
    if #list == 0 then return end
    local ids = {}
    for i, e in ipairs(list) do ids[i] = KEPT_REST(e) end
    local runs = redis.call('HMGET', KEYS[3], unpack(ids))
    local at, gone, freed, met = 0, {}, 0, {}
    for i, e in ipairs(list) do
      local run = runs[i]
      local r = run and (seen[run] or look(run))
      local ended6 = KEPT_BYTES(e, ended)
      -- A task that was retried and ended again within a millisecond has two entries that are alike.
      if r and r.state == state and r.ended == ended6 and not met[ids[i]] then
        local over = (most >= 0 and kept > most) or (bytes_most >= 0 and bytes > bytes_most)
          or KEPT_NUM(e, ended) <= oldest
        if not over then break end
        kept, bytes, freed = kept - 1, bytes - r.size, freed + r.size
        gone[#gone + 1] = ids[i]
        met[ids[i]] = true
        r.removed = r.removed + 1
      end
      at = i
    end
    if #gone > 0 then
      count('n' .. state .. queue, -#gone)
      count('b' .. state .. queue, -freed)
      forget(gone)
      removed = removed + #gone
    end
    if at > 0 then redis.call('LTRIM', KEPT, at, -1) end
    if at < #list then return end
  end
  more = 1
end

for s = 1, (#ARGV - 7) / 4 do
  local a = 4 + s * 4
  prune_state(KEYS[10 + s], ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]))
end
for _, r in pairs(seen) do
  if r.removed > 0 then count(r.state .. r.pair, -r.removed) end
end
flush_stat(STAT)

-- The order of enqueueing is a list with entries of tasks that are gone. When they are the greater part, its oldest
-- entries are looked through: the gone are dropped, the others move to a sorted set.
if redis.call('LLEN', ORD) > 2 * redis.call('HLEN', KEYS[2]) + 1000 then
  local from, upto, chunk, stay = 0, 2 * removed + 99, 20, {}
  while from <= upto do
    local list = redis.call('LRANGE', ORD, from, math.min(from + chunk - 1, upto))
    if #list == 0 then break end
    local ids = {}
    for i, e in ipairs(list) do ids[i] = PLACE_REST(e) end
    local bytes = 0
    for i, task in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
      if task then
        bytes = bytes + #task
        stay[#stay + 1] = PLACE_NUM(list[i], order)
        stay[#stay + 1] = ids[i]
      end
    end
    from = from + #list
    -- What is gone costs nothing to ask for; payloads that are still there should not be read in bulk.
    chunk = bytes > 65536 and 5 or 200
  end
  if #stay > 0 then redis.call('ZADD', OLD, unpack(stay)) end
  redis.call('LTRIM', ORD, from, -1)
end
return {removed, more}
