-- What Audit asks. A sound store answers the statements audit_… with no rows. Their columns: seq, id, detail.

-- name: audit_places
SELECT * FROM (
	SELECT t.seq, t.id, 'it is in ' ||
		((r.seq IS t.seq) + (k.seq IS NOT NULL) + (d.seq IS NOT NULL) + (p.seq IS NOT NULL) + (h.seq IS NOT NULL) + (e.seq IS NOT NULL)) ||
		' of ready, queued, due, pending, held and ended'
	FROM task t LEFT JOIN meta m ON m.seq = t.seq
		LEFT JOIN ready r ON r.lane = t.lane AND r.prio = t.prio AND r.ord = coalesce(m.ord, t.seq) AND r.seq = t.seq
		LEFT JOIN queued k ON k.seq = t.seq AND k.lane = t.lane AND k.prio = t.prio AND k.ord = coalesce(m.ord, t.seq)
		LEFT JOIN due d ON d.seq = t.seq LEFT JOIN pending p ON p.seq = t.seq
		LEFT JOIN held h ON h.seq = t.seq LEFT JOIN ended e ON e.seq = t.seq
	WHERE (r.seq IS t.seq) + (k.seq IS NOT NULL) + (d.seq IS NOT NULL) + (p.seq IS NOT NULL) + (h.seq IS NOT NULL) + (e.seq IS NOT NULL) <> 1
) LIMIT 10000

-- name: audit_states
SELECT t.seq, t.id, 'it is ' || coalesce(m.state, t.born, 'available') || ', but stands elsewhere'
FROM task t LEFT JOIN meta m ON m.seq = t.seq
	LEFT JOIN ready r ON r.lane = t.lane AND r.prio = t.prio AND r.ord = coalesce(m.ord, t.seq) AND r.seq = t.seq
	LEFT JOIN queued k ON k.seq = t.seq
	LEFT JOIN due d ON d.seq = t.seq LEFT JOIN pending p ON p.seq = t.seq
WHERE CASE coalesce(m.state, t.born, 'available') WHEN 'available' THEN d.seq IS NOT NULL OR p.seq IS NOT NULL
	WHEN 'pending' THEN coalesce(r.seq, k.seq) IS NOT NULL OR d.seq IS NOT NULL
	ELSE coalesce(r.seq, k.seq) IS NOT NULL OR p.seq IS NOT NULL END
LIMIT 10000

-- name: audit_due
SELECT d.seq, t.id, 'its due time or lane in due is not its own'
FROM due d JOIN task t ON t.seq = d.seq LEFT JOIN meta m ON m.seq = d.seq
WHERE d.lane <> t.lane OR d.at <> coalesce(m.at, t.at, 0)
LIMIT 10000

-- name: audit_lanes
SELECT x.seq, t.id, 'its lane or priority in ' || x.place || ' is not its own'
FROM (SELECT seq, lane, NULL AS prio, 'pending' AS place FROM pending UNION ALL SELECT seq, lane, prio, 'held' FROM held
	UNION ALL SELECT seq, lane, NULL, 'ended' FROM ended) x JOIN task t ON t.seq = x.seq
WHERE x.lane <> t.lane OR x.prio <> t.prio
LIMIT 10000

-- name: audit_held
SELECT h.seq, t.id, 'it is held by a worker that is gone'
FROM held h JOIN task t ON t.seq = h.seq LEFT JOIN worker w ON w.no = h.worker
WHERE w.no IS NULL OR w.life = 'gone'
LIMIT 10000

-- name: audit_orphans
-- Rows of a task that does not exist.
SELECT seq, NULL, 'there is no such task, but it is in ' || place FROM (
	SELECT seq, 'due' AS place FROM due UNION ALL SELECT seq, 'pending' FROM pending UNION ALL SELECT seq, 'held' FROM held
	UNION ALL SELECT seq, 'queued' FROM queued UNION ALL SELECT seq, 'ended' FROM ended UNION ALL SELECT seq, 'meta' FROM meta UNION ALL SELECT seq, 'report' FROM report
) x WHERE NOT EXISTS (SELECT 1 FROM task t WHERE t.seq = x.seq)
LIMIT 10000

-- name: audit_bytes
SELECT e.seq, t.id, 'its size in ended is ' || e.bytes || ', it has ' || (length(t.payload) + coalesce(length(e.result), 0))
FROM ended e JOIN task t ON t.seq = e.seq JOIN lane l ON l.no = e.lane
WHERE e.bytes <> length(t.payload) + coalesce(length(e.result), 0) OR e.queue <> l.queue
LIMIT 10000

-- name: audit_extra
SELECT e.seq, t.id, 'it has rows in meta or report that would be left behind'
FROM ended e JOIN task t ON t.seq = e.seq
WHERE e.extra = 0 AND (e.seq IN (SELECT seq FROM meta) OR e.seq IN (SELECT seq FROM report))
LIMIT 10000

-- name: mend_extra
UPDATE ended SET extra = 1 WHERE seq = ?

-- name: audit_expiry_missing
SELECT t.seq, t.id, 'it is available and expires, but is not in expiry'
FROM task t LEFT JOIN ready r ON r.lane = t.lane AND r.prio = t.prio AND r.seq = t.seq
	AND r.ord = coalesce((SELECT ord FROM meta m WHERE m.seq = t.seq), t.seq)
	LEFT JOIN queued k ON k.seq = t.seq
	LEFT JOIN expiry x ON x.lane = t.lane AND x.at = t.expires AND x.seq = t.seq
WHERE t.expires IS NOT NULL AND x.seq IS NULL AND coalesce(r.seq, k.seq) IS NOT NULL
LIMIT 10000

-- name: audit_unique_missing
SELECT t.seq, t.id, 'it has not ended, but does not own its unique key'
FROM task t WHERE t.uniq = 'done' AND NOT EXISTS (SELECT 1 FROM ended e WHERE e.seq = t.seq)
	AND t.seq NOT IN (SELECT seq FROM uniq)
LIMIT 10000

-- name: audit_ready
-- Entries of ready that are not where their task belongs. Columns: lane, prio, ord, id.
SELECT r.lane, r.prio, r.ord, t.id FROM ready r LEFT JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
WHERE t.seq IS NULL OR t.lane <> r.lane OR t.prio <> r.prio OR coalesce(m.ord, t.seq) <> r.ord
LIMIT 10000

-- name: audit_expiry
-- Entries of expiry without an available task. Columns: lane, at, seq, id.
SELECT x.lane, x.at, x.seq, t.id FROM expiry x LEFT JOIN task t ON t.seq = x.seq LEFT JOIN meta m ON m.seq = x.seq
	LEFT JOIN ready r ON r.lane = t.lane AND r.prio = t.prio AND r.ord = coalesce(m.ord, t.seq) AND r.seq = x.seq
	LEFT JOIN queued k ON k.seq = x.seq
WHERE coalesce(r.seq, k.seq) IS NULL OR t.lane <> x.lane OR t.expires IS NOT x.at
LIMIT 10000

-- name: audit_unique
-- Keys without an owner that has not ended. Columns: seq, id, key.
SELECT u.seq, u.id, u.key FROM uniq u LEFT JOIN task t ON t.seq = u.seq LEFT JOIN ended e ON e.seq = u.seq
WHERE u.until <> 'ttl' AND (t.seq IS NULL OR e.seq IS NOT NULL OR t.uniq IS NOT u.until OR t.id <> u.id)
LIMIT 10000

-- name: audit_tasks
SELECT seq FROM task

-- name: audit_store
-- The numbers that were used already, and the size of the event log.
SELECT max(coalesce((SELECT max(seq) FROM task), 0), coalesce((SELECT max(ord) FROM ready), 0),
		coalesce((SELECT max(ord) FROM queued), 0),
		coalesce((SELECT max(ord) FROM ended), 0), coalesce((SELECT max(ord) FROM meta), 0), coalesce((SELECT max(ord) FROM held), 0)),
	max(coalesce((SELECT max(token) FROM held), 0), coalesce((SELECT max(token) FROM ended), 0), coalesce((SELECT max(token) FROM meta), 0)),
	coalesce((SELECT max(no + n) FROM event), 0),
	coalesce((SELECT sum(length(packed)) FROM event), 0),
	coalesce((SELECT max(no) FROM worker), 0)

-- name: count_lanes
-- Columns: lane, state, tasks.
SELECT lane, 'available', count(*) FROM ready GROUP BY lane
UNION ALL SELECT lane, 'available', count(*) FROM queued GROUP BY lane
UNION ALL SELECT lane, 'flowing', count(*) FROM queued GROUP BY lane
UNION ALL SELECT lane, 'parked', sum(n) FROM flow WHERE parked = 1 GROUP BY lane
UNION ALL SELECT lane, 'pending', count(*) FROM pending GROUP BY lane
UNION ALL SELECT lane, 'active', count(*) FROM held GROUP BY lane
UNION ALL SELECT d.lane, coalesce(m.state, t.born) AS state, count(*) FROM due d JOIN task t ON t.seq = d.seq
	LEFT JOIN meta m ON m.seq = d.seq GROUP BY d.lane, state
UNION ALL SELECT lane, state, count(*) FROM ended GROUP BY lane, state
UNION ALL SELECT lane, 'expiring', count(*) FROM expiry GROUP BY lane

-- name: count_kept
-- Columns: queue, state, bytes.
SELECT queue, state, sum(bytes) FROM ended GROUP BY queue, state

-- name: integrity
PRAGMA integrity_check(20)

-- name: reindex
REINDEX

-- name: mend_bytes
UPDATE ended SET bytes = (SELECT length(payload) FROM task t WHERE t.seq = ended.seq) + coalesce(length(result), 0),
	queue = (SELECT queue FROM lane l WHERE l.no = ended.lane)
WHERE seq = ?

-- name: mend_lane
UPDATE ended SET lane = ?2 WHERE seq = ?1

-- name: ready_at
SELECT seq FROM ready WHERE lane = ? AND prio = ? AND ord = ?

-- name: place_of
SELECT (SELECT count(*) FROM due WHERE seq = ?1), (SELECT count(*) FROM pending WHERE seq = ?1),
	(SELECT count(*) FROM held WHERE seq = ?1), (SELECT count(*) FROM ended WHERE seq = ?1)

-- name: mend_held
UPDATE held SET lane = ?2, prio = ?3 WHERE seq = ?1

-- Whole rows, each with its checksum at the end.

-- name: audit_sums_store
SELECT * FROM store

-- name: audit_sums_queue
SELECT * FROM queue

-- name: audit_sums_lane
SELECT * FROM lane

-- name: audit_sums_uniq
SELECT * FROM uniq

-- name: audit_sums_worker
SELECT * FROM worker

-- name: audit_sums_event
SELECT * FROM event

-- name: audit_sums_plan
SELECT * FROM plan

-- name: audit_sums_plan_part
SELECT * FROM plan_part

-- name: audit_sums_plan_news
SELECT * FROM plan_news

-- name: audit_sums_plan_signal
SELECT * FROM plan_signal

-- name: audit_sums_share
SELECT * FROM share

-- name: audit_sums_keyed
SELECT * FROM keyed

-- name: audit_sums_flow
SELECT * FROM flow
