#!lua flags=allow-oom
-- Makes a worker known, or updates what is known of it, and starts its lease.
--
-- KEYS meta workers winfo gone events
-- ARGV head, worker, lease in ms, what it says of itself, 1 to log the event.
-- RETURNS the clock. Or WAGGLELEASE: this id had its life.
--@include head
--@include events
--@include record

local worker = ARGV[6]
local lease_end = redis.call('ZSCORE', KEYS[2], worker)
if (lease_end and tonumber(lease_end) <= 1) or redis.call('ZSCORE', KEYS[4], worker) then
  return redis.error_reply('WAGGLELEASE this worker id was used before')
end
local since = NOW6
if lease_end then
  local info = redis.call('HGET', KEYS[3], worker)
  if info then since = JOINED_BYTES(info, since) end
end
redis.call('ZADD', KEYS[2], NOW + ARGV[7], worker)
redis.call('HSET', KEYS[3], worker, JOINED_MAKE(since = since) .. ARGV[8])
if not lease_end and ARGV[9] == '1' then
  emit('worker_joined', '\0\0', worker, {''})
  flush_events(KEYS[5])
end
return NOW
