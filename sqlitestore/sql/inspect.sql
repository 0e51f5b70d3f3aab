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
SELECT seq, lane FROM ready WHERE seq < ? ORDER BY seq DESC LIMIT ?

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
SELECT seq, lane FROM ready WHERE seq > ? ORDER BY seq LIMIT ?

-- name: available_heads
-- The front task of every priority of every lane: the longest waiting one is among them.
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

-- name: event_page
-- From the row that holds event ?1 on.
SELECT no, n, packed FROM event
WHERE no >= coalesce((SELECT no FROM event WHERE no <= ?1 ORDER BY no DESC LIMIT 1), 0) ORDER BY no LIMIT ?2

-- name: event_bounds
SELECT coalesce((SELECT min(no) FROM event), next_event), next_event FROM store

-- name: lane_names
SELECT l.no, q.name, l.type FROM lane l JOIN queue q ON q.no = l.queue

-- name: available_count
SELECT coalesce(sum(available), 0) FROM lane
