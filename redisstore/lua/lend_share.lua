#!lua flags=allow-oom
-- Shares out the limits of a queue and of its types among the shards. It runs in the queue's home.
--
-- Each shard has a quota of a limit of concurrency and starts a task only while fewer are active in it. The home has a ledger
-- of the most that can be active in each shard, and lends only what is left of the limit. Both have versions: a loan counts up the
-- shard's version, and so does each time that the shard gives something up. The ledger takes what a shard reports only if the
-- shard has got the last loan; a shard takes a loan only if it is newer than all that it knows. So calls may be lost, repeated,
-- or come late, and callers may die: the ledger never has less than what can become active.
--
-- What is not lent the home uses itself, without asking anybody: it is where most tasks of a limited queue are, since their ids
-- are made so. When other shards lack something, it keeps that for them as its own tasks end.
--
-- Of a rate the home has the arrival, and lends permits to start some tasks at once, which lapse soon.
--
-- KEYS meta stat
-- KEYS each shared queue: keyed/QUEUE share/QUEUE opens/QUEUE rest/QUEUE flow/QUEUE heads/QUEUE
-- ARGV head, number of shards, most tasks that the caller can start, where to begin, ms after which a shard that has long had what others
--      lack is to give way, the place of the home among the shards, number of the queue's pairs, their numbers; for each scope that all shards have reported: its name, for each shard: version, most active, active, waiting, permits.
-- RETURNS a flat list of loans: number of the shard, scope, version, quota ('': none), the limit, permits, their version, the rate;
--      when the first rate opens that keeps something waiting, in ms (0: none); 1 if a limit of concurrency is used up, 2 if
--      shards have nothing of it that lack something; a flat list of
--      shards that are to give way, and in what scope; the clock.
--@include head
--@include stat
--@include record
--@include share
--@include lend

local shard_count, want, first, patience = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local home, pair_count = tonumber(ARGV[10]), tonumber(ARGV[11])
local q = share_at(2)
share_limits(q, KEYS[2], {unpack(ARGV, 12, 11 + pair_count)})
local of, at = {}, 11 + pair_count
while at < #ARGV do
  local r = {scope = ARGV[at + 1]}
  for s = 1, shard_count do
    local a = at + 2 + (s - 1) * 5
    r[s] = {version = tonumber(ARGV[a]), most = tonumber(ARGV[a + 1]), active = tonumber(ARGV[a + 2]), waiting = tonumber(ARGV[a + 3]),
      permits = tonumber(ARGV[a + 4])}
  end
  of[r.scope] = r
  at = at + 1 + shard_count * 5
end

local loans, opens, used_up, yield = {}, 0, 0, {}
for _, l in ipairs(q.limits) do
  if of[l.scope] then pass_by(q, l, of[l.scope], of, shard_count, first) end
end
for _, l in ipairs(q.limits) do
  local r = of[l.scope]
  if r and l.most > 0 then
    local full = lend_quota(q, l, r, shard_count, first, loans, home)
    if full then
      used_up = math.max(used_up, 1)
      if give_way(q, l, r, shard_count, patience, yield, home) then used_up = 2 end
    end
  end
end
for _, l in ipairs(q.limits) do
  local r = of[l.scope]
  if r and l.interval > 0 then
    local at = lend_permits(q, l, r, of, shard_count, want, first, loans, home)
    if at > 0 and (opens == 0 or at < opens) then opens = at end
  end
end
for _, l in ipairs(q.limits) do
  if of[l.scope] then keep_for_others(q, l) end
end
return {loans, opens, used_up, yield, NOW}
