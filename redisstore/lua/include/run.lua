-- The parts of a run record that scripts want of active and completed tasks. Needs record. flags are without the one that
-- tells the short form; tail is what follows the fixed part. nil for a record that is too short to be one.
local function read_run(run)
  local flags = RUN_NUM(run, flags) or 0
  local short, done = HAS(flags, short), RUN_BYTES(run, state) == 'C'
  if #run <= (short and (done and DONE_LEN or SHORT_LEN) or RUN_LEN) then return nil end
  local r = {state = RUN_BYTES(run, state), flags = short and flags - FLAG(short) or flags, short = short, pair = RUN_NUM(run, pair)}
  if short then
    r.token, r.size = SHORT_BYTES(run, token), SHORT_NUM(run, size)
    if done then
      r.ended, r.tail = DONE_BYTES(run, ended), DONE_REST(run)
    else
      r.ended, r.tail = '', SHORT_REST(run)
    end
  else
    r.token, r.size = RUN_BYTES(run, token), RUN_NUM(run, size)
    r.ended, r.tail = RUN_BYTES(run, ended), RUN_REST(run)
  end
  return r
end
