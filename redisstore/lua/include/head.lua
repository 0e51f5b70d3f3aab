-- The first step of every script that writes.
--
-- KEYS[1] is the meta hash; its field inc is the store's incarnation, pairs and conf are the versions of what clients
-- keep in memory of pair numbers and queue configurations. ARGV[1..5]: the incarnation, milliseconds to add to the
-- clock (always 0 but in tests), events to keep, and the versions of pairs and conf that the caller knows ('' where
-- the script does not depend on them).
local META = KEYS[1]
local head = redis.call('HMGET', META, 'inc', 'pairs', 'conf', 'any')
if head[1] ~= ARGV[1] then
  return redis.error_reply('WAGGLELOST the store is not the one that was opened')
end
if (ARGV[4] ~= '' and ARGV[4] ~= head[2]) or (ARGV[5] ~= '' and ARGV[5] ~= head[3]) then
  return redis.error_reply('WAGGLESTALE pairs or configurations have changed')
end
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[2]
local NOW6 = struct.pack('>I6', NOW)
