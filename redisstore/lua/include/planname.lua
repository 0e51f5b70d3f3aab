-- plan_of returns the plan that a task names and its step. A task that names one has it first in its envelope. Needs record.
local function plan_of(task)
  local at = (HAS(TASK_NUM(task, flags), expires) and LATER_LEN or TASK_LEN) + 2 -- behind the envelope's version
  while byte(task, at) and byte(task, at) >= 128 do at = at + 1 end
  local parts = {}
  for i = 1, 3 do
    at = at + 1
    local n = byte(task, at) -- names are short, so that one byte tells their length
    if n and n >= 128 then
      at = at + 1
      n = n - 128 + 128 * byte(task, at)
    end
    if not n then return nil end
    parts[i] = sub(task, at + 1, at + n)
    at = at + n
  end
  return parts[1] .. '/' .. parts[2], parts[3]
end
