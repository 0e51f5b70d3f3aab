-- Wake tokens: at most one waits in each list, so that one change wakes one worker.
local function wake(list)
  if redis.call('LLEN', list) == 0 then redis.call('RPUSH', list, '1') end
end
