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
SELECT incarnation, next_seq, next_token, next_event, event_bytes, next_worker, changes FROM store

-- name: store_save
UPDATE store SET next_seq = ?, next_token = ?, next_event = ?, event_bytes = ?, next_worker = ?, changes = ?

-- name: queue_load
SELECT no, name, config, kept_completed, kept_cancelled, kept_discarded,
	enqueued, retried, completed, cancelled, discarded, failed, crashed, deleted_live
FROM queue ORDER BY name

-- name: queue_load_one
SELECT no, name, config, kept_completed, kept_cancelled, kept_discarded,
	enqueued, retried, completed, cancelled, discarded, failed, crashed, deleted_live
FROM queue WHERE name = ?

-- name: lane_load_one
SELECT no, queue, type, scheduled, pending, available, active, retryable, completed, cancelled, discarded, expiring, flowing, parked
FROM lane WHERE queue = ?

-- name: queue_insert
INSERT INTO queue (no, name) VALUES (?, ?)

-- name: queue_save
UPDATE queue SET kept_completed = ?2, kept_cancelled = ?3, kept_discarded = ?4,
	enqueued = ?5, retried = ?6, completed = ?7, cancelled = ?8, discarded = ?9, failed = ?10, crashed = ?11, deleted_live = ?12
WHERE no = ?1

-- name: queue_configure
UPDATE queue SET config = ?2 WHERE no = ?1

-- name: lane_load
SELECT no, queue, type, scheduled, pending, available, active, retryable, completed, cancelled, discarded, expiring, flowing, parked
FROM lane ORDER BY no

-- name: lane_insert
INSERT INTO lane (no, queue, type) VALUES (?, ?, ?)

-- name: lane_save
UPDATE lane SET scheduled = ?2, pending = ?3, available = ?4, active = ?5, retryable = ?6,
	completed = ?7, cancelled = ?8, discarded = ?9, expiring = ?10, flowing = ?11, parked = ?12
WHERE no = ?1

-- name: event_insert
INSERT INTO event (no, n, packed) VALUES (?, ?, ?)

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
