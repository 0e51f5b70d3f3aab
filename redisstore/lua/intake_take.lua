#!lua
-- Takes elements out of an intake list into a batch, or returns the batch that is there already. At most one batch is
-- under way for a list. All keys are in the list's slot.
--
-- KEYS list stage taken
-- ARGV packed id of a new batch (16 bytes), the caller, elements and bytes a batch has at most, for how many ms a batch
--      is left to the caller who has it.
-- RETURNS the batch: its head (BATCH) and its elements; an empty list if there is nothing
--      to take; 'BUSY' if another caller has a batch; 'TYPE' if the key is no list.
--@include record

local LIST, STAGE, TAKEN = KEYS[1], KEYS[2], KEYS[3]
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)
local NOW6 = pack('>I6', NOW)

local head = redis.call('LINDEX', TAKEN, 0)
if head then
  local age = NOW - BATCH_NUM(head, taken)
  if BATCH_REST(head) ~= ARGV[2] and age >= 0 and age < tonumber(ARGV[5]) then return 'BUSY' end
  redis.call('LSET', TAKEN, 0, BATCH_MAKE(id = BATCH_BYTES(head, id), taken = NOW6) .. ARGV[2])
  return redis.call('LRANGE', TAKEN, 0, -1)
end

local kind = redis.call('TYPE', LIST)['ok']
if kind ~= 'list' and kind ~= 'none' then return 'TYPE' end

local batch, bytes, full = {BATCH_MAKE(id = ARGV[1], taken = NOW6) .. ARGV[2]}, 0, false

-- pick copies elements of a list into the batch and returns how many. It looks at few first: they may be large.
local function pick(list)
  local n, step = 0, 16
  while not full do
    local part = redis.call('LRANGE', list, n, n + math.min(step, most + 1 - #batch) - 1)
    for i = 1, #part do
      if bytes > 0 and bytes + #part[i] > most_bytes then
        full = true
        break
      end
      batch[#batch + 1], bytes, n = part[i], bytes + #part[i], n + 1
    end
    full = full or #batch > most
    if #part < step then break end
    step = step * 4
  end
  return n
end

local staged = pick(STAGE)
local listed = pick(LIST)
if #batch == 1 then return {} end
if staged > 0 then redis.call('LTRIM', STAGE, staged, -1) end
if listed > 0 then redis.call('LTRIM', LIST, listed, -1) end
redis.call('RPUSH', TAKEN, unpack(batch))
return batch
