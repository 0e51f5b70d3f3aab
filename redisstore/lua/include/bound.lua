-- Bounds of queues, for batches with tasks of bounded queues.
--
-- In ARGV: number of bounds; for each: how many tasks of the queue may wait in this shard, number of
-- the queue's pairs, their numbers; for each pair of the call the index of its queue's bound, 0 if it has none; the same for each
-- evicted owner.
local bounds, bound_of, bound_of_owner = {}, {}, {}

-- read_bounds parses what follows ARGV[at], counts what waits, and returns the index of the last argument read.
local function read_bounds(at, pairs_of_call, owners)
  local function arg()
    at = at + 1
    return ARGV[at]
  end
  for b = 1, tonumber(arg()) do
    local room = tonumber(arg())
    for _ = 1, tonumber(arg()) do
      local n = arg()
      for _, v in ipairs(redis.call('HMGET', STAT, 'A' .. n, 'S' .. n, 'T' .. n, 'P' .. n)) do
        room = room - tonumber(v or 0)
      end
    end
    bounds[b] = {room = room}
  end
  for p = 1, pairs_of_call do
    bound_of[p] = bounds[tonumber(arg())]
  end
  for _, owner in ipairs(owners) do
    bound_of_owner[owner] = bounds[tonumber(arg())]
  end
  return at
end

-- has_room takes a place in a queue's bound, if there is one, for a task that replaces an owner if that is not nil. One that
-- must not be refused takes it in any case.
local function has_room(b, owner, must)
  local left = owner and bound_of_owner[owner]
  if b and left == b then return true end
  if b then
    if b.room <= 0 and not must then return false end
    b.room = b.room - 1
  end
  if left then left.room = left.room + 1 end
  return true
end
