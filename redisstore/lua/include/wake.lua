-- Wake tokens: at most one waits in each list, so that one change wakes one worker. It says in which shards there is something:
-- s and their numbers with commas between, * if that may be many, or + if something of a limit has become free that any may want. A token is for those that wait, or are just about to: whoever comes later
-- looks first whether there is work. So one that nobody took goes by itself.
local function named_also(there, from)
  if there == '+' or from == '+' then return '+' end
  if there == '*' or from == '*' then return '*' end
  if string.find(',' .. there .. ',', ',' .. from .. ',', 1, true) then return there end
  there = there .. ',' .. from
  return #there > 32 and '*' or there -- who asks so many may ask all
end

local function wake(list, from)
  from = from or 's0' -- scripts that write to the lists are those of the hub
  local there = redis.call('LINDEX', list, 0)
  if not there then
    redis.call('RPUSH', list, from)
    redis.call('EXPIRE', list, 60)
  elseif there ~= from then
    redis.call('LSET', list, 0, named_also(there, from))
  end
end
