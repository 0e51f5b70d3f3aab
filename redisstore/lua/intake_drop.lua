#!lua flags=allow-oom
-- Forgets a batch of an intake list whose tasks are stored, except for elements that can't be tasks.
--
-- KEYS taken refused
-- ARGV packed id of the batch, places of the refused elements in it, from 1.
-- RETURNS 1, or 0 if that batch is not there any more.
--@include record

local TAKEN, REFUSED = KEYS[1], KEYS[2]
local head = redis.call('LINDEX', TAKEN, 0)
if not head or BATCH_BYTES(head, id) ~= ARGV[1] then return 0 end
local refused = {}
for i = 2, #ARGV do
  refused[#refused + 1] = redis.call('LINDEX', TAKEN, ARGV[i])
end
if #refused > 0 then redis.call('RPUSH', REFUSED, unpack(refused)) end
redis.call('UNLINK', TAKEN)
return 1
