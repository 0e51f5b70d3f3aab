#!lua
-- Has a queue shared out from now on: see include/share.lua.
--
-- KEYS meta conf
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, the queue's name and the mark of those that are shared out.
-- RETURNS nothing.
--@include head

if redis.call('HSETNX', KEYS[2], ARGV[6], '1') == 1 then
  redis.call('HSETNX', KEYS[4], 'conf', 'fair free whole')
  redis.call('HINCRBY', META, 'conf', 1)
end
return 1
