-- Claims, and what a Fetch tidies up before them.

-- name: claim_rows
SELECT r.prio, r.ord, r.seq, t.id, t.enqueued_at, t.expires, t.uniq, t.sum, t.envelope, t.payload, m.attempt, m.crashes, t.born, t.at, t.lane, t.prio
FROM ready r LEFT JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
WHERE r.lane = ? ORDER BY r.prio, r.ord

-- name: claim_hold
-- What was claimed is the front of the lane, up to and with one place.
INSERT INTO held (seq, worker, token, lane, prio, ord, claimed_at, cancel, reported, sum)
SELECT seq, ?4, ?5, lane, prio, ord, ?6, 0, 0, ?7 + seq * 3 + ord * 5 + prio * 7 FROM ready WHERE lane = ?1 AND (prio, ord) <= (?2, ?3)

-- name: claim_take
DELETE FROM ready WHERE lane = ?1 AND (prio, ord) <= (?2, ?3)

-- name: due_list
SELECT at, seq FROM due WHERE lane = ? AND at <= ? ORDER BY at, seq LIMIT ?

-- name: expiry_list
SELECT at, seq FROM expiry WHERE lane = ? AND at <= ? ORDER BY at, seq LIMIT ?

-- name: prune_list
SELECT ord, lane, bytes, ended_at, extra, seq FROM ended WHERE queue = ? AND state = ? ORDER BY ord LIMIT ?

-- name: prune_task
DELETE FROM task WHERE seq IN (SELECT seq FROM ended WHERE queue = ? AND state = ? AND ord <= ?)

-- name: prune_ended
DELETE FROM ended WHERE queue = ? AND state = ? AND ord <= ?
