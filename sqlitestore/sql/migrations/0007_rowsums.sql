-- Checksums of the rows that belong to no single task: see rowsums.go. The rows that are there get theirs here.

ALTER TABLE store ADD COLUMN sum INTEGER;
ALTER TABLE queue ADD COLUMN sum INTEGER;
ALTER TABLE lane ADD COLUMN sum INTEGER;
ALTER TABLE uniq ADD COLUMN sum INTEGER;
ALTER TABLE worker ADD COLUMN sum INTEGER;
ALTER TABLE event ADD COLUMN sum INTEGER;
ALTER TABLE plan ADD COLUMN sum INTEGER;
ALTER TABLE plan_part ADD COLUMN sum INTEGER;
ALTER TABLE plan_news ADD COLUMN sum INTEGER;
ALTER TABLE plan_signal ADD COLUMN sum INTEGER;
ALTER TABLE share ADD COLUMN sum INTEGER;
ALTER TABLE keyed ADD COLUMN sum INTEGER;
ALTER TABLE flow ADD COLUMN sum INTEGER;

UPDATE store SET sum = rowsum(one, incarnation, next_seq, next_token, next_event, event_bytes, next_worker, sums_from, changes);
UPDATE queue SET sum = rowsum(no, name, config, kept_completed, kept_cancelled, kept_discarded,
	enqueued, retried, completed, cancelled, discarded, failed, crashed, deleted_live);
UPDATE lane SET sum = rowsum(no, queue, type, scheduled, pending, available, active, retryable, completed, cancelled, discarded,
	expiring, flowing, parked);
UPDATE uniq SET sum = rowsum(key, seq, id, until, expires);
UPDATE worker SET sum = rowsum(no, id, life, lease_end, since, host, build, info, directive, directed);
UPDATE event SET sum = rowsum(no, n, packed);
UPDATE plan SET sum = rowsum(no, kind, name, version, state, wake, expires, created, updated, news, seen, reserved, at);
UPDATE plan_part SET sum = rowsum(plan, name, bytes);
UPDATE plan_news SET sum = rowsum(plan, no, packed);
UPDATE plan_signal SET sum = rowsum(plan, id, no);
UPDATE share SET sum = rowsum(queue, virtual, plain, arrivals);
UPDATE keyed SET sum = rowsum(no, queue, key, tag, waiting, active, queued, until, held, arrivals);
UPDATE flow SET sum = rowsum(key, lane, prio, n, tag, rank, head, parked, opens);
