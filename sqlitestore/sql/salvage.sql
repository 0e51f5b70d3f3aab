-- What Salvage asks of a damaged file. Each reads as few tables as can be.

-- name: salvage_tasks
SELECT seq FROM task NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?

-- name: salvage_task
SELECT id, lane, prio, enqueued_at, sum, envelope, payload, at, expires, born, uniq FROM task NOT INDEXED WHERE seq = ?

-- name: salvage_lane
SELECT q.name, l.type FROM lane l NOT INDEXED JOIN queue q NOT INDEXED ON q.no = l.queue WHERE l.no = ?

-- name: salvage_count
SELECT count(*) FROM task INDEXED BY sqlite_autoindex_task_1

-- name: salvage_counters
SELECT sum(scheduled + pending + available + active + retryable + completed + cancelled + discarded) FROM lane NOT INDEXED

-- name: salvage_next
SELECT next_seq FROM store

-- name: salvage_last_task
SELECT max(seq) FROM task NOT INDEXED

-- name: salvage_last_id
SELECT max(seq) FROM task INDEXED BY sqlite_autoindex_task_1

-- name: salvage_last_ended
SELECT max(seq) FROM ended NOT INDEXED

-- name: salvage_last_due
SELECT max(seq) FROM due NOT INDEXED

-- name: salvage_last_held
SELECT max(seq) FROM held

-- name: salvage_plans
SELECT no FROM plan NOT INDEXED WHERE no BETWEEN ? AND ? ORDER BY no LIMIT ?

-- name: salvage_plan
SELECT kind, name, version, state, wake, expires, created, updated, news, seen FROM plan NOT INDEXED WHERE no = ?

-- name: salvage_last_plan
SELECT max(no) FROM plan NOT INDEXED

-- name: salvage_last_plan_name
SELECT max(no) FROM plan INDEXED BY sqlite_autoindex_plan_1
