-- What the inspecting methods ask. Lists give seqs, the newest first, older than one.

-- name: list_all
SELECT seq, lane FROM task WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: list_due
SELECT d.seq, d.lane FROM due d WHERE d.seq < ? ORDER BY d.seq DESC LIMIT ?

-- name: list_pending
SELECT seq, lane FROM pending WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: list_held
SELECT seq, lane FROM held WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: list_ended
SELECT seq, lane FROM ended WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: list_ready
SELECT seq, lane FROM ready WHERE seq < ?1
UNION ALL SELECT seq, lane FROM queued WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2

-- name: list_overdue
SELECT seq, lane FROM due WHERE seq < ?1 AND at <= ?3 ORDER BY seq DESC LIMIT ?2

-- name: list_lapsed
SELECT seq, lane FROM expiry WHERE seq < ?1 AND at <= ?3 ORDER BY seq DESC LIMIT ?2

-- name: first_overdue
SELECT seq, lane FROM due WHERE seq > ?1 AND at <= ?3 ORDER BY seq LIMIT ?2

-- name: first_lapsed
SELECT seq, lane FROM expiry WHERE seq > ?1 AND at <= ?3 ORDER BY seq LIMIT ?2

-- name: expiry_count
SELECT count(*) FROM expiry WHERE lane = ? AND at <= ?

-- name: available_oldest
-- Of the tasks that have not expired.
SELECT min(coalesce(m.at, t.at, t.enqueued_at))
FROM (SELECT seq, lane FROM ready UNION ALL SELECT seq, lane FROM queued) r
	JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
WHERE r.lane = ?1 AND (t.expires IS NULL OR t.expires > ?2)

-- name: due_count
-- The tasks that are due, by the state that was recorded last: how many, how many of them have expired, and since when the
-- longest waiting of the others has been due.
SELECT coalesce(m.state, t.born), count(*), coalesce(sum(t.expires <= ?2), 0),
	min(CASE WHEN t.expires IS NULL OR t.expires > ?2 THEN d.at END)
FROM due d JOIN task t ON t.seq = d.seq LEFT JOIN meta m ON m.seq = d.seq WHERE d.lane = ?1 AND d.at <= ?2 GROUP BY 1

-- name: first_all
SELECT seq, lane FROM task WHERE seq > ? ORDER BY seq LIMIT ?

-- name: first_due
SELECT seq, lane FROM due WHERE seq > ? ORDER BY seq LIMIT ?

-- name: first_pending
SELECT seq, lane FROM pending WHERE seq > ? ORDER BY seq LIMIT ?

-- name: first_held
SELECT seq, lane FROM held WHERE seq > ? ORDER BY seq LIMIT ?

-- name: first_ended
SELECT seq, lane FROM ended WHERE seq > ? ORDER BY seq LIMIT ?

-- name: first_ready
SELECT seq, lane FROM ready WHERE seq > ?1
UNION ALL SELECT seq, lane FROM queued WHERE seq > ?1 ORDER BY seq LIMIT ?2

-- name: available_heads
-- The front task of every priority of every lane, and of every key: the longest waiting one is among them.
WITH RECURSIVE head (lane, prio) AS (
	SELECT lane, prio FROM (SELECT lane, prio FROM ready ORDER BY lane, prio LIMIT 1)
	UNION ALL
	SELECT r.lane, r.prio FROM head h JOIN ready r ON (r.lane, r.prio, r.ord) = (
		SELECT lane, prio, ord FROM ready WHERE (lane, prio) > (h.lane, h.prio) ORDER BY lane, prio, ord LIMIT 1)
)
SELECT h.lane, coalesce(m.at, t.at, t.enqueued_at)
FROM head h JOIN ready r ON r.lane = h.lane AND r.prio = h.prio
	AND r.ord = (SELECT min(ord) FROM ready x WHERE x.lane = h.lane AND x.prio = h.prio)
	JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
UNION ALL SELECT f.lane, coalesce(m.at, t.at, t.enqueued_at)
FROM flow f JOIN queued k ON k.lane = f.lane AND k.prio = f.prio AND k.key = f.key AND k.rank = f.rank AND k.ord = f.head
	JOIN task t ON t.seq = k.seq LEFT JOIN meta m ON m.seq = k.seq

-- name: lane_heads
-- The same of one lane.
WITH RECURSIVE head (prio) AS (
	SELECT min(prio) FROM ready WHERE lane = ?1
	UNION ALL
	SELECT (SELECT min(prio) FROM ready WHERE lane = ?1 AND prio > h.prio) FROM head h WHERE h.prio IS NOT NULL
)
SELECT ?1, coalesce(m.at, t.at, t.enqueued_at)
FROM head h JOIN ready r ON r.lane = ?1 AND r.prio = h.prio
	AND r.ord = (SELECT min(ord) FROM ready x WHERE x.lane = ?1 AND x.prio = h.prio)
	JOIN task t ON t.seq = r.seq LEFT JOIN meta m ON m.seq = r.seq
UNION ALL SELECT ?1, coalesce(m.at, t.at, t.enqueued_at)
FROM (SELECT * FROM flow WHERE lane = ?1 AND parked = 0 UNION ALL SELECT * FROM flow WHERE lane = ?1 AND parked = 1) f
	JOIN queued k ON k.lane = f.lane AND k.prio = f.prio AND k.key = f.key AND k.rank = f.rank AND k.ord = f.head
	JOIN task t ON t.seq = k.seq LEFT JOIN meta m ON m.seq = k.seq

-- name: event_page
-- From the row that holds event ?1 on.
SELECT no, n, packed, sum FROM event
WHERE no >= coalesce((SELECT no FROM event WHERE no <= ?1 ORDER BY no DESC LIMIT 1), 0) ORDER BY no LIMIT ?2

-- name: event_first
SELECT min(no) FROM event

-- name: lane_names
SELECT l.no, q.name, l.type FROM lane l JOIN queue q ON q.no = l.queue

-- name: available_count
SELECT coalesce(sum(available), 0) FROM lane
