-- Marks a room's log as safe up to a number: other nodes have it. Only then web servers deliver it, so that no number is
-- ever given twice, whatever a failover takes back.
-- KEYS: safe. ARGV: number, channel, hint
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return redis.call('PUBLISH', ARGV[2], ARGV[3])
