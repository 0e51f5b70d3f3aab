-- Tasks and their places.

-- name: task_insert
INSERT INTO task (seq, lane, prio, enqueued_at, at, expires, sum, born, uniq, id, envelope, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING

-- name: task_seq
SELECT seq FROM task WHERE id = ?

-- name: task_delete
DELETE FROM task WHERE seq = ?

-- name: work
-- Without the payload and the result: what a change of state needs.
SELECT t.seq, t.id, t.lane, t.prio, t.born, t.uniq, t.enqueued_at, t.at, t.expires, t.sum, t.envelope, NULL, length(t.payload),
	m.state, m.at, m.ord, m.attempt, m.crashes, m.token, m.settled, m.worker, m.claimed_at, m.history,
	h.worker, h.token, h.ord, h.claimed_at, h.cancel,
	e.state, e.ord, e.ended_at, e.bytes, e.reason, e.token, e.settled, e.worker, e.claimed_at, e.attempt, e.started, e.encoding, NULL,
	t.born, t.at, m.sum, h.lane, h.prio, h.reported, h.sum, e.queue, e.lane, e.extra, e.started, e.sum
FROM task t LEFT JOIN meta m ON m.seq = t.seq LEFT JOIN held h ON h.seq = t.seq LEFT JOIN ended e ON e.seq = t.seq
WHERE t.seq = ?

-- name: record
SELECT t.seq, t.id, t.lane, t.prio, t.born, t.uniq, t.enqueued_at, t.at, t.expires, t.sum, t.envelope, t.payload, length(t.payload),
	m.state, m.at, m.ord, m.attempt, m.crashes, m.token, m.settled, m.worker, m.claimed_at, m.history,
	h.worker, h.token, h.ord, h.claimed_at, h.cancel,
	e.state, e.ord, e.ended_at, e.bytes, e.reason, e.token, e.settled, e.worker, e.claimed_at, e.attempt, e.started, e.encoding, e.result,
	t.born, t.at, m.sum, h.lane, h.prio, h.reported, h.sum, e.queue, e.lane, e.extra, e.started, e.sum,
	q.name, l.type, w.id, w.host, w.build, r.progress, r.logs, r.seq, r.sum, w.no, q.no,
	CASE WHEN coalesce(h.seq, e.seq) IS NOT NULL THEN 'there'
		WHEN EXISTS (SELECT 1 FROM ready x WHERE x.lane = t.lane AND x.prio = t.prio AND x.ord = coalesce(m.ord, t.seq) AND x.seq = t.seq) THEN 'available'
		WHEN EXISTS (SELECT 1 FROM queued x WHERE x.seq = t.seq) THEN 'available'
		WHEN EXISTS (SELECT 1 FROM due x WHERE x.seq = t.seq) THEN 'due'
		WHEN EXISTS (SELECT 1 FROM pending x WHERE x.seq = t.seq) THEN 'pending' END
FROM task t LEFT JOIN meta m ON m.seq = t.seq LEFT JOIN held h ON h.seq = t.seq LEFT JOIN ended e ON e.seq = t.seq
	LEFT JOIN lane l ON l.no = t.lane LEFT JOIN queue q ON q.no = l.queue
	LEFT JOIN worker w ON w.no = coalesce(h.worker, e.worker, m.worker) LEFT JOIN report r ON r.seq = t.seq
WHERE t.seq = ?

-- name: ready_fresh
-- The tasks that were enqueued as available in this transaction, from a seq on.
INSERT INTO ready (lane, prio, ord, seq) SELECT lane, prio, seq, seq FROM task WHERE seq >= ? AND born IS NULL

-- name: ready_insert
INSERT INTO ready (lane, prio, ord, seq) VALUES (?, ?, ?, ?)

-- name: ready_delete
DELETE FROM ready WHERE lane = ? AND prio = ? AND ord = ?

-- name: expiry_insert
INSERT OR IGNORE INTO expiry (lane, at, seq) VALUES (?, ?, ?)

-- name: expiry_delete
DELETE FROM expiry WHERE lane = ? AND at = ? AND seq = ?

-- name: due_insert
INSERT INTO due (seq, lane, at) VALUES (?, ?, ?)

-- name: due_delete
DELETE FROM due WHERE seq = ?

-- name: due_first
SELECT at FROM due WHERE lane = ? ORDER BY at LIMIT 1

-- name: pending_insert
INSERT INTO pending (seq, lane) VALUES (?, ?)

-- name: pending_delete
DELETE FROM pending WHERE seq = ?

-- name: held_delete
DELETE FROM held WHERE seq = ?

-- name: held_complete
DELETE FROM held WHERE seq = ? AND token = ? AND cancel = 0 AND reported = 0

-- name: held_cancel
UPDATE held SET cancel = 1, sum = sum + (1 - cancel) * 1099511627776 WHERE seq = ?

-- name: held_reported
UPDATE held SET reported = 1, sum = sum + (1 - reported) * 4398046511104 WHERE seq = ?

-- name: ended_insert
INSERT INTO ended (seq, queue, lane, ord, ended_at, bytes, token, settled, worker, claimed_at, attempt, extra, started, state, reason, encoding, result, sum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: ended_delete
DELETE FROM ended WHERE seq = ?

-- name: meta_save
INSERT INTO meta (seq, at, ord, attempt, crashes, token, settled, worker, claimed_at, state, history, sum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET at = excluded.at, ord = excluded.ord, attempt = excluded.attempt, crashes = excluded.crashes,
	token = excluded.token, settled = excluded.settled, worker = excluded.worker, claimed_at = excluded.claimed_at,
	state = excluded.state, history = excluded.history, sum = excluded.sum

-- name: meta_delete
DELETE FROM meta WHERE seq = ?

-- name: report_get
SELECT progress, logs FROM report WHERE seq = ?

-- name: report_save
INSERT INTO report (seq, progress, logs, sum) VALUES (?, ?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET progress = excluded.progress, logs = excluded.logs, sum = excluded.sum

-- name: report_delete
DELETE FROM report WHERE seq = ?

-- name: ready_next
SELECT prio FROM ready WHERE lane = ? AND prio > ? ORDER BY prio LIMIT 1

-- name: ready_oldest
SELECT ord, seq FROM ready WHERE lane = ? AND prio = ? ORDER BY ord LIMIT ?

-- name: queued_oldest
SELECT ord, seq FROM queued WHERE lane = ? ORDER BY ord LIMIT ?

-- name: uniq_get
SELECT * FROM uniq WHERE key = ?

-- name: uniq_put
INSERT INTO uniq (key, seq, id, until, expires, sum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, id = excluded.id, until = excluded.until, expires = excluded.expires, sum = excluded.sum

-- name: uniq_free
DELETE FROM uniq WHERE seq = ? AND key = ?

-- name: uniq_sweep
DELETE FROM uniq WHERE key IN (SELECT key FROM uniq WHERE expires IS NOT NULL AND expires <= ? AND sum IS rowsum(key, seq, id, until, expires) LIMIT ?)
