#!lua flags=allow-oom
-- Settles completed attempts.
--
-- KEYS meta run result own uniq stat events held/WORKER cancel/WORKER
-- KEYS each pair: kept/C/QUEUE
-- ARGV head, worker, where it ran (length and host, length and build), number of pairs, for each: number, subject, queue,
--      for each settlement, with different ids: index of its pair, packed id, token and running time as >I6 each,
--      encoding byte and result or ''.
-- RETURNS one letter a settlement: 1 accepted, 0 the lease is lost; then for each pair how many completed tasks its
--      queue keeps.
--@include head
--@include events
--@include stat

local RUN, RESULT, OWN, UNIQ, STAT, EVENTS, HELD, CANCEL = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local worker, where, pair_count = ARGV[6], ARGV[7], tonumber(ARGV[8])
local tail = string.char(#worker) .. worker
local base = 8 + pair_count * 3
local n = (#ARGV - base) / 5
local pairs_of = {}
for p = 1, pair_count do
  local number = tonumber(ARGV[6 + p * 3])
  pairs_of[p] = {number = ARGV[6 + p * 3], subject = ARGV[7 + p * 3], queue = ARGV[8 + p * 3], ids = {}, kept = {}, bytes = 0,
    high = math.floor(number / 65536), middle = math.floor(number / 256) % 256, low = number % 256}
end
local ids = {}
for i = 1, n do
  ids[i] = ARGV[base + i * 5 - 3]
end
local runs = redis.call('HMGET', RUN, unpack(ids))
local letters, writes, results, owners, cancelled, done = {}, {}, {}, {}, {}, {}
local sub, byte = string.sub, string.byte
local worker_end = 62 + #worker
local flag_chars = {}
for flags = 0, 7 do flag_chars[flags] = 'C' .. string.char(16 + flags) end
local ending = tail .. where
for i = 1, n do
  local at = base + i * 5
  local run, token6 = runs[i], ARGV[at - 2]
  letters[i] = '0'
  if run and sub(run, 20, 25) == token6 and sub(run, 62, worker_end) == tail then
    local p = pairs_of[tonumber(ARGV[at - 4])]
    local state, flags, high, middle, low = byte(run, 1, 5)
    if high == p.high and middle == p.middle and low == p.low then
      if state == 82 then -- R
        local id, result = ids[i], ARGV[at]
        local s1, s2, s3, s4 = byte(run, 58, 61)
        local size, size4 = ((s1 * 256 + s2) * 256 + s3) * 256 + s4, nil
        if result ~= '' then
          size = size + #result - 1
          size4 = struct.pack('>I4', size)
          results[#results + 1] = id
          results[#results + 1] = result
        else
          size4 = sub(run, 58, 61)
        end
        local k = #done + 1
        done[k] = id
        writes[k * 2 - 1] = id
        writes[k * 2] = flag_chars[flags % 8] .. sub(run, 3, 45) .. NOW6 .. ARGV[at - 1] .. size4 .. ending
        if flags % 4 >= 2 then owners[#owners + 1] = id end
        if flags % 16 >= 8 then cancelled[#cancelled + 1] = id end
        k = #p.ids + 1
        p.ids[k] = id
        p.kept[k] = NOW6 .. id
        p.bytes = p.bytes + size
        letters[i] = '1'
      elseif flags % 32 >= 16 then
        letters[i] = '1'
      end
    end
  end
end

local kept = {}
if #done > 0 then
  redis.call('HSET', RUN, unpack(writes))
  redis.call('SREM', HELD, unpack(done))
  if #results > 0 then redis.call('HSET', RESULT, unpack(results)) end
  if #cancelled > 0 then redis.call('HDEL', CANCEL, unpack(cancelled)) end
  if #owners > 0 then
    local keys = redis.call('HMGET', OWN, unpack(owners))
    for i = 1, #owners do
      if keys[i] and string.byte(keys[i], 1) == 1 then
        redis.call('HDEL', UNIQ, string.sub(keys[i], 2))
        redis.call('HDEL', OWN, owners[i])
      end
    end
  end
  for i, p in ipairs(pairs_of) do
    kept[i] = 0
    if #p.ids > 0 then
      redis.call('RPUSH', KEYS[9 + i], unpack(p.kept))
      count('R' .. p.number, -#p.ids)
      count('C' .. p.number, #p.ids)
      count('c' .. p.number, #p.ids)
      if p.bytes > 0 then count('bC' .. p.queue, p.bytes) end
      kept[i] = redis.call('HINCRBY', STAT, 'nC' .. p.queue, #p.ids)
      emit('completed', p.subject, '', p.ids)
    end
  end
  flush_stat(STAT)
  flush_events(EVENTS)
end
return {table.concat(letters), kept}
