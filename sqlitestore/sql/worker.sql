-- Workers, their leases and what they hold.

-- name: worker_get
SELECT * FROM worker WHERE id = ?

-- name: worker_insert
INSERT INTO worker (no, id, life, lease_end, since, host, build, info, directive, directed, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: worker_update
UPDATE worker SET lease_end = ?4, host = ?6, build = ?7, info = ?8, sum = ?11 WHERE no = ?1

-- name: worker_renew
UPDATE worker SET lease_end = ?4, sum = ?11 WHERE no = ?1

-- name: worker_beat
UPDATE worker SET lease_end = ?4, directed = ?10, sum = ?11 WHERE no = ?1

-- name: worker_direct
UPDATE worker SET directive = ?9, directed = ?10, sum = ?11 WHERE no = ?1

-- name: worker_life
UPDATE worker SET life = ?3, lease_end = ?4, sum = ?11 WHERE no = ?1

-- name: worker_first
-- The limit is no parameter: a statement that the planner has looked at the parameters of is planned anew each time.
SELECT * FROM worker WHERE life <> 'gone' ORDER BY lease_end LIMIT 1

-- name: worker_by_lease
SELECT * FROM worker WHERE life <> 'gone' ORDER BY lease_end LIMIT 2

-- name: worker_count
SELECT count(*) FROM worker WHERE life <> 'gone'

-- name: worker_forget
DELETE FROM worker WHERE life = 'gone' AND lease_end < ?
	AND sum IS rowsum(no, id, life, lease_end, since, host, build, info, directive, directed)

-- name: worker_list
SELECT w.*, coalesce(h.n, 0)
FROM worker w LEFT JOIN (SELECT worker, count(*) AS n FROM held GROUP BY worker) h ON h.worker = w.no
WHERE w.life <> 'gone' ORDER BY w.id

-- name: held_by
SELECT seq FROM held WHERE worker = ? ORDER BY token, prio, ord LIMIT ?

-- name: control_news
SELECT w.directed + (SELECT count(*) FROM held h WHERE h.worker = w.no AND h.cancel = 1 AND h.cancel > 0)
FROM worker w WHERE w.id = ?

-- name: cancel_list
SELECT t.id, h.token, h.cancel FROM held h JOIN task t ON t.seq = h.seq WHERE h.worker = ? AND h.cancel > 0 ORDER BY t.id

-- name: cancel_told
UPDATE held SET cancel = 2, sum = sum + 1099511627776 WHERE worker = ? AND cancel = 1 AND cancel > 0

-- name: worker_id
SELECT id FROM worker WHERE no = ?

-- name: worker_by_no
SELECT * FROM worker WHERE no = ?

-- name: ended_by
SELECT seq FROM ended WHERE worker = ? AND started IS NOT NULL

-- name: ended_noted
UPDATE ended SET started = NULL, extra = 1, sum = ?2 WHERE seq = ?1
