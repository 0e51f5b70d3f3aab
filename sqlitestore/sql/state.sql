-- What the writer keeps in memory, and the frame of its transactions.

-- name: begin
BEGIN IMMEDIATE

-- name: begin_read
BEGIN

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: data_version
PRAGMA data_version

-- name: store_load
SELECT one, incarnation, next_seq, next_token, next_event, event_bytes, next_worker, sums_from, changes, sum FROM store

-- name: store_save
UPDATE store SET next_seq = ?3, next_token = ?4, next_event = ?5, event_bytes = ?6, next_worker = ?7, changes = ?9, sum = ?10 WHERE one = ?1

-- name: queue_load
SELECT no, name, config, kept_completed, kept_cancelled, kept_discarded,
	enqueued, retried, completed, cancelled, discarded, failed, crashed, deleted_live, sum
FROM queue ORDER BY name

-- name: queue_load_one
SELECT no, name, config, kept_completed, kept_cancelled, kept_discarded,
	enqueued, retried, completed, cancelled, discarded, failed, crashed, deleted_live, sum
FROM queue WHERE name = ?

-- name: queue_row
SELECT * FROM queue WHERE no = ?

-- name: lane_row
SELECT * FROM lane WHERE no = ?

-- name: lane_load_one
SELECT no, queue, type, scheduled, pending, available, active, retryable, completed, cancelled, discarded, expiring, flowing, parked, sum
FROM lane WHERE queue = ?

-- name: queue_insert
-- It is saved by the end of the transaction.
INSERT INTO queue (no, name) VALUES (?, ?)

-- name: queue_save
UPDATE queue SET config = ?3, kept_completed = ?4, kept_cancelled = ?5, kept_discarded = ?6,
	enqueued = ?7, retried = ?8, completed = ?9, cancelled = ?10, discarded = ?11, failed = ?12, crashed = ?13, deleted_live = ?14,
	sum = ?15
WHERE no = ?1

-- name: lane_load
SELECT no, queue, type, scheduled, pending, available, active, retryable, completed, cancelled, discarded, expiring, flowing, parked, sum
FROM lane ORDER BY no

-- name: lane_insert
-- It is saved by the end of the transaction.
INSERT INTO lane (no, queue, type) VALUES (?, ?, ?)

-- name: lane_save
UPDATE lane SET scheduled = ?4, pending = ?5, available = ?6, active = ?7, retryable = ?8,
	completed = ?9, cancelled = ?10, discarded = ?11, expiring = ?12, flowing = ?13, parked = ?14, sum = ?15
WHERE no = ?1

-- name: event_insert
INSERT INTO event (no, n, packed, sum) VALUES (?, ?, ?, ?)

-- name: event_oldest
SELECT no, length(packed) FROM event ORDER BY no LIMIT 1

-- name: event_delete
DELETE FROM event WHERE no = ?

-- name: page_count
PRAGMA page_count

-- name: page_size
PRAGMA page_size

-- name: freelist_count
PRAGMA freelist_count

-- name: store_create
INSERT INTO store (one, incarnation, next_seq, next_token, next_event, event_bytes, next_worker) VALUES (1, ?, 1, 1, 0, 0, 1)

-- name: user_version
PRAGMA user_version

-- name: incarnation
SELECT incarnation FROM store

-- name: sums_from
SELECT sums_from FROM store

-- name: store_event
SELECT incarnation, next_event FROM store

-- name: store_root
SELECT rootpage FROM sqlite_schema WHERE name = 'store'
