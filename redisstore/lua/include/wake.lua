-- Wake tokens: at most one waits in each list, so that one change wakes one worker. A token is for those that wait, or are just
-- about to: whoever comes later looks first whether there is work. So one that nobody took goes by itself.
local function wake(list)
  if redis.call('LLEN', list) == 0 then
    redis.call('RPUSH', list, '1')
    redis.call('EXPIRE', list, 60)
  end
end
