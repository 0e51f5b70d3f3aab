#!lua flags=allow-oom
-- Deletes tasks that a client has read, each only if its run is still as it was. They own no unique key and are in few
-- indexes; the others go through commit.lua.
--
-- KEYS meta stat events task run hist result news old ord
-- KEYS each group: the index that they are taken out of, the key that goes when it holds none of them any more
-- ARGV head, groups; for each: letter of the state, number of the pair, subject, the command that takes them out ('': none),
--      the counter of what the second key holds, that of its bytes ('': none), how many they are, for each: packed id, run ('': there is none), bytes.
-- RETURNS one letter a task: 1 done, 0 left alone because something had changed.
--@include head
--@include events
--@include stat

local STAT, TASK, RUN = KEYS[2], KEYS[4], KEYS[5]
local at, letters, gone = 6, {}, {}

-- delete_group deletes one group's tasks, whose arguments begin behind at.
local function delete_group(g)
  local state, pair, subject, command, counter, bytes_counter, n = unpack(ARGV, at + 1, at + 7)
  n = tonumber(n)
  local base, ids, bytes = at + 7, {}, 0
  at = base + n * 3
  for i = 1, n do ids[i] = ARGV[base + i * 3 - 2] end
  local runs, done = redis.call('HMGET', RUN, unpack(ids)), {}
  for i = 1, n do
    local id, want, run = ids[i], ARGV[base + i * 3 - 1], runs[i]
    local same
    if run then same = run == want else same = want == '' and redis.call('HEXISTS', TASK, id) == 1 end
    if same then
      done[#done + 1] = id
      gone[#gone + 1] = id
      bytes = bytes + ARGV[base + i * 3]
      letters[#letters + 1] = '1'
    else
      letters[#letters + 1] = '0'
    end
  end
  if #done == 0 then return end
  if command ~= '' then redis.call(command, KEYS[9 + g * 2], unpack(done)) end
  count(state .. pair, -#done)
  if bytes_counter ~= '' then
    count(counter, -#done)
    count(bytes_counter, -bytes)
  else
    count('l' .. pair, #done)
  end
  emit('deleted', subject, '', done)
  return counter ~= '' and counter
end

local vacant = {}
for g = 1, tonumber(ARGV[6]) do
  local counter = delete_group(g)
  if counter then vacant[KEYS[10 + g * 2]] = counter end
end
if #gone == 0 then return table.concat(letters) end
for k = 4, 8 do
  if redis.call('EXISTS', KEYS[k]) == 1 then redis.call('HDEL', KEYS[k], unpack(gone)) end
end
if redis.call('EXISTS', KEYS[9]) == 1 then redis.call('ZREM', KEYS[9], unpack(gone)) end
flush_stat(STAT)
flush_events(KEYS[3])
-- The order of enqueueing has entries of tasks that are gone: where all are, it is empty.
if redis.call('EXISTS', TASK) == 0 then redis.call('UNLINK', KEYS[9], KEYS[10]) end
for key, counter in pairs(vacant) do
  if tonumber(redis.call('HGET', STAT, counter) or 0) <= 0 then redis.call('UNLINK', key) end
end
return table.concat(letters)
