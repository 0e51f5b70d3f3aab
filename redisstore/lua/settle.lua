#!lua flags=allow-oom
-- Settles completed attempts.
--
-- KEYS meta run result own uniq stat events held/WORKER cancel/WORKER
-- KEYS each pair: kept/C/QUEUE
-- ARGV head, worker, where it ran (length and host, length and build), number of pairs, for each: number, subject, queue,
--      for each settlement: index of its pair, packed id, token and running time as >I6I6, encoding byte and result or ''.
-- RETURNS one letter a settlement: 1 accepted, 0 the lease is lost; then for each pair how many completed tasks its
--      queue keeps.
--@include head
--@include events
--@include stat

local RUN, RESULT, OWN, UNIQ, STAT, EVENTS, HELD, CANCEL = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local worker, where, pair_count = ARGV[6], ARGV[7], tonumber(ARGV[8])
local tail = string.char(#worker) .. worker
local base = 8 + pair_count * 3
local n = (#ARGV - base) / 4
local pairs_of = {}
for p = 1, pair_count do
  pairs_of[p] = {number = ARGV[6 + p * 3], subject = ARGV[7 + p * 3], queue = ARGV[8 + p * 3],
    number3 = struct.pack('>I3', tonumber(ARGV[6 + p * 3])), ids = {}, kept = {}, bytes = 0}
end
local ids = {}
for i = 1, n do
  ids[i] = ARGV[base + i * 4 - 2]
end
local runs = redis.call('HMGET', RUN, unpack(ids))
local letters, writes, results, owners, cancelled, done, settled = {}, {}, {}, {}, {}, {}, {}
for i = 1, n do
  local p, id, run = pairs_of[tonumber(ARGV[base + i * 4 - 3])], ids[i], runs[i]
  local token = ARGV[base + i * 4 - 1]
  letters[i] = '0'
  if settled[id] then
    if settled[id] == string.sub(token, 1, 6) then letters[i] = '1' end
  elseif run and string.sub(run, 20, 25) == string.sub(token, 1, 6) and string.sub(run, 5, 7) == p.number3
    and string.sub(run, 62, 62 + #worker) == tail then
    local flags = string.byte(run, 2)
    if string.sub(run, 1, 1) == 'R' then
      local result = ARGV[base + i * 4]
      local size = struct.unpack('>I4', run, 58)
      if result ~= '' then
        size = size + #result - 1
        results[#results + 1] = id
        results[#results + 1] = result
      end
      writes[#writes + 1] = id
      writes[#writes + 1] = 'C' .. string.char(16 + flags % 8) .. '\0' .. string.sub(run, 4, 45) .. NOW6
        .. string.sub(token, 7, 12) .. struct.pack('>I4', size) .. tail .. where
      if flags % 4 >= 2 then owners[#owners + 1] = id end
      if flags % 16 >= 8 then cancelled[#cancelled + 1] = id end
      p.ids[#p.ids + 1] = id
      p.kept[#p.kept + 1] = NOW6 .. id
      p.bytes = p.bytes + size
      done[#done + 1] = id
      settled[id] = string.sub(token, 1, 6)
      letters[i] = '1'
    elseif flags % 32 >= 16 then
      letters[i] = '1'
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
