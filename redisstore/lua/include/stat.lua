-- Counters, added up in memory and written once each.
local deltas = {}

local function count(field, n)
  deltas[field] = (deltas[field] or 0) + n
end

-- flush_stat writes what was counted. STAT is the hash's key.
local function flush_stat(STAT)
  for field, n in pairs(deltas) do
    if n ~= 0 then redis.call('HINCRBY', STAT, field, n) end
  end
end
