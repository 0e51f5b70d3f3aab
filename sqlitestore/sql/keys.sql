-- Keys: what is kept of them, and where their tasks wait.

-- name: share_load
SELECT queue, virtual, plain, arrivals, sum FROM share

-- name: share_load_one
SELECT queue, virtual, plain, arrivals, sum FROM share WHERE queue = ?

-- name: share_save
INSERT INTO share (queue, virtual, plain, arrivals, sum) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (queue) DO UPDATE SET virtual = excluded.virtual, plain = excluded.plain, arrivals = excluded.arrivals, sum = excluded.sum

-- name: key_last
SELECT coalesce(max(no), 0) FROM keyed

-- name: key_get
SELECT * FROM keyed WHERE queue = ? AND key = ?

-- name: key_name
SELECT queue, key FROM keyed WHERE no = ?

-- name: key_save
UPDATE keyed SET tag = ?4, waiting = ?5, active = ?6, queued = ?7, until = ?8, held = ?9, arrivals = ?10, sum = ?11
WHERE no = ?1 AND queue = ?2 AND key = ?3

-- name: key_insert
INSERT INTO keyed (no, queue, key, tag, waiting, active, queued, until, held, arrivals, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: key_delete
DELETE FROM keyed WHERE no = ?

-- name: key_part
-- The last of some keys after a number.
SELECT no FROM keyed WHERE no > ? ORDER BY no LIMIT 1 OFFSET ?

-- name: key_rest
-- Keys that are as good as ones that were never seen.
DELETE FROM keyed WHERE no > ?1 AND no <= ?2 AND +queue = ?3 AND tag <= ?4 AND queued = 0 AND active = 0 AND waiting = 0 AND until < ?5
	AND sum IS rowsum(no, queue, key, tag, waiting, active, queued, until, held, arrivals) RETURNING key

-- name: key_resting
-- How many keys have no tasks and are remembered for their tag.
SELECT count(*) FROM keyed WHERE no > ?1 AND no <= ?2 AND +queue = ?3 AND tag > ?4 AND queued = 0 AND active = 0 AND waiting = 0

-- name: key_list
SELECT key FROM keyed WHERE queue = ?

-- name: key_busy
SELECT key FROM keyed WHERE queue = ? AND (active > 0 OR waiting > 0)

-- name: key_held
SELECT * FROM keyed WHERE queue = ? AND (active > 0 OR waiting > 0)

-- name: flow_get
SELECT * FROM flow WHERE key = ?

-- name: flow_save
UPDATE flow SET n = ?4, tag = ?5, rank = ?6, head = ?7, parked = ?8, opens = ?9, sum = ?10 WHERE key = ?1 AND lane = ?2 AND prio = ?3

-- name: flow_insert
INSERT INTO flow (key, lane, prio, n, tag, rank, head, parked, opens, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: flow_delete
DELETE FROM flow WHERE key = ? AND lane = ? AND prio = ?

-- name: flow_heads
SELECT f.*, k.* FROM flow f JOIN keyed k ON k.no = f.key
WHERE f.lane = ? AND f.parked = 0 ORDER BY f.prio, f.tag, f.head LIMIT ?

-- name: flow_shut
SELECT DISTINCT k.key FROM flow f JOIN keyed k ON k.no = f.key WHERE f.lane = ? AND f.parked = 1

-- name: flow_opening
SELECT k.key FROM flow f JOIN keyed k ON k.no = f.key WHERE f.lane = ? AND f.opens IS NOT NULL AND f.opens <= ? ORDER BY f.opens LIMIT ?

-- name: flow_opens
SELECT min(opens) FROM flow WHERE lane = ? AND opens IS NOT NULL

-- name: flow_opened
-- Tasks that are parked, and may start at a time.
SELECT coalesce(sum(n), 0) FROM flow WHERE lane = ? AND opens IS NOT NULL AND opens <= ? AND parked = 1

-- name: flow_lapsed
-- Tasks that are parked, and have expired at a time.
SELECT count(*) FROM expiry x JOIN queued q ON q.seq = x.seq JOIN flow f ON f.key = q.key AND f.lane = q.lane AND f.prio = q.prio
WHERE x.lane = ?1 AND x.at <= ?2 AND f.parked = 1 AND (f.opens IS NULL OR f.opens > ?2)

-- name: queued_insert
INSERT INTO queued (seq, lane, prio, key, rank, ord) VALUES (?, ?, ?, ?, ?, ?)

-- name: queued_get
SELECT prio, key FROM queued WHERE seq = ?

-- name: queued_delete
DELETE FROM queued WHERE seq = ?

-- name: queued_head
SELECT rank, ord FROM queued WHERE lane = ? AND prio = ? AND key = ? ORDER BY rank, ord LIMIT 1

-- name: queued_rows
-- As claim_rows, of one flow.
SELECT r.prio, r.ord, r.seq, t.id, t.enqueued_at, t.expires, t.uniq, t.sum, t.envelope, t.payload, m.attempt, m.crashes, t.born, t.at, t.lane, t.prio
FROM queued r LEFT JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
WHERE r.lane = ? AND r.prio = ? AND r.key = ? ORDER BY r.rank, r.ord LIMIT 1

-- name: held_insert
INSERT INTO held (seq, worker, token, lane, prio, ord, claimed_at, cancel, reported, sum) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?)

-- name: audit_flows
-- Flows that are not what is queued. Columns: key, lane, prio, detail.
SELECT key, lane, prio, 'it has ' || coalesce(n, 0) || ' tasks of ' || tasks || ' and begins at ' || coalesce(head, 0) || ' instead of ' || first FROM (
	SELECT q.key, q.lane, q.prio, f.n, f.head, count(*) AS tasks,
		(SELECT ord FROM queued x WHERE x.key = q.key AND x.lane = q.lane AND x.prio = q.prio ORDER BY rank, ord LIMIT 1) AS first
	FROM queued q LEFT JOIN flow f ON f.key = q.key AND f.lane = q.lane AND f.prio = q.prio GROUP BY q.key, q.lane, q.prio
) WHERE n IS NOT tasks OR head IS NOT first
UNION ALL SELECT f.key, f.lane, f.prio, 'it has no tasks' FROM flow f
WHERE NOT EXISTS (SELECT 1 FROM queued q WHERE q.key = f.key AND q.lane = f.lane AND q.prio = f.prio)
LIMIT 10000

-- name: audit_keys
SELECT k.no, k.queue, k.key, k.tag, k.waiting, k.active, k.queued, k.held, k.arrivals FROM keyed k

-- name: audit_lives
-- The tasks that count for a key: lane, envelope, 1 if it is active, else it waits after a claim.
SELECT h.lane, t.envelope, 1 FROM held h JOIN task t ON t.seq = h.seq
UNION ALL SELECT d.lane, t.envelope, 0 FROM due d JOIN task t ON t.seq = d.seq JOIN meta m ON m.seq = d.seq WHERE m.token > 0

-- name: audit_queued
-- Rows with what decides where they stand. Columns: seq, id, envelope, key, lane, rank, when the task expires.
SELECT q.seq, t.id, t.envelope, k.key, q.lane, q.rank, t.expires FROM queued q JOIN task t ON t.seq = q.seq LEFT JOIN keyed k ON k.no = q.key

-- name: mend_queued
SELECT q.seq, q.lane, q.prio, q.ord, t.envelope, t.expires FROM queued q JOIN task t ON t.seq = q.seq

-- name: mend_flows
DELETE FROM flow

-- name: mend_keyed
DELETE FROM keyed

-- name: mend_empty
DELETE FROM queued

-- name: queued_flows
-- Of a key that is damaged. It reads all that is queued.
SELECT lane, prio, count(*) FROM queued WHERE key = ? GROUP BY lane, prio
