-- The parts of a run record (see record.go) that scripts want of active and completed tasks. flags are without the one
-- that tells the short form; tail is what follows the fixed part. nil for a record that is too short to be one.
local function read_run(run)
  local flags = string.byte(run, 2) or 0
  if #run < (flags % 64 < 32 and 62 or string.sub(run, 1, 1) == 'C' and 34 or 22) then return nil end
  local r = {state = string.sub(run, 1, 1), flags = flags % 32, short = flags % 64 >= 32}
  if r.short then
    r.pair, r.token, r.size = struct.unpack('>I3', run, 3), string.sub(run, 6, 11), struct.unpack('>I4', run, 18)
    if r.state == 'C' then
      r.ended, r.tail = string.sub(run, 22, 27), string.sub(run, 34)
    else
      r.ended, r.tail = '', string.sub(run, 22)
    end
  else
    r.pair, r.token, r.size = struct.unpack('>I3', run, 3), string.sub(run, 20, 25), struct.unpack('>I4', run, 58)
    r.ended, r.tail = string.sub(run, 46, 51), string.sub(run, 62)
  end
  return r
end
