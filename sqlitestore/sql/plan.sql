-- Plans: their heads, bodies and parts, news and signals.

-- name: plan_get
SELECT no, version, state, wake, expires, created, updated, news, seen, reserved, at FROM plan WHERE kind = ? AND name = ?

-- name: plan_insert
INSERT INTO plan (kind, name, state, version, wake, expires, created, updated, news, seen, reserved, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, NULL)

-- name: plan_last
SELECT last_insert_rowid()

-- name: plan_save
UPDATE plan SET state = ?, version = ?, wake = ?, expires = ?, updated = ?, news = ?, seen = ?, reserved = ?, at = ? WHERE no = ?

-- name: plan_told
UPDATE plan SET news = ?2, at = ?3 WHERE no = ?1

-- name: plan_reserve
UPDATE plan SET reserved = ?2, at = ?3 WHERE no = ?1

-- name: plan_first
SELECT at FROM plan WHERE at IS NOT NULL ORDER BY at LIMIT 1

-- name: plan_due
SELECT kind, name, expires FROM plan WHERE at IS NOT NULL AND at <= ? ORDER BY at LIMIT ?

-- name: plan_expired
SELECT no FROM plan WHERE at IS NOT NULL AND at <= ?1 AND expires <= ?1 LIMIT ?2

-- name: plan_list
SELECT name FROM plan WHERE kind = ? AND name > ? AND name >= ? ORDER BY name LIMIT ?

-- name: plan_delete
DELETE FROM plan WHERE no = ?

-- name: plan_part_put
INSERT INTO plan_part (plan, name, bytes) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET bytes = ?3

-- name: plan_part_drop
DELETE FROM plan_part WHERE plan = ? AND name = ?

-- name: plan_part_get
SELECT name, bytes FROM plan_part WHERE plan = ? AND name = ?

-- name: plan_part_all
SELECT name, bytes FROM plan_part WHERE plan = ? AND name <> '' ORDER BY name

-- name: plan_part_delete
DELETE FROM plan_part WHERE plan = ?

-- name: plan_news_put
INSERT INTO plan_news (plan, no, packed) VALUES (?, ?, ?)

-- name: plan_news_get
SELECT no, packed FROM plan_news WHERE plan = ? AND no > ? ORDER BY no LIMIT ?

-- name: plan_news_drop
DELETE FROM plan_news WHERE plan = ? AND no <= ?

-- name: plan_news_delete
DELETE FROM plan_news WHERE plan = ?

-- name: plan_signal_put
INSERT INTO plan_signal (plan, id, no) VALUES (?1, ?2, 1 + coalesce((SELECT max(no) FROM plan_signal WHERE plan = ?1), 0)) ON CONFLICT DO NOTHING

-- name: plan_signal_known
SELECT 1 FROM plan_signal WHERE plan = ? AND id = ?

-- name: plan_signal_trim
DELETE FROM plan_signal WHERE plan = ?1 AND no <= (SELECT max(no) FROM plan_signal WHERE plan = ?1) - ?2

-- name: plan_signal_delete
DELETE FROM plan_signal WHERE plan = ?

-- name: audit_plans
-- plan, kind/name, what is wrong. The time is checked in Go.
SELECT p.no, p.kind || '/' || p.name, 'it has ' || count(n.no) || ' news, and ' || (p.news - p.seen) || ' should wait'
FROM plan p LEFT JOIN plan_news n ON n.plan = p.no
GROUP BY p.no HAVING count(n.no) <> p.news - p.seen
LIMIT 10000

-- name: audit_plan_orphans
SELECT x.plan, x.place || ' ' || x.what FROM (
	SELECT plan, 'part' AS place, name AS what FROM plan_part UNION ALL SELECT plan, 'news', no FROM plan_news
	UNION ALL SELECT plan, 'signal', id FROM plan_signal) x
WHERE x.plan NOT IN (SELECT no FROM plan) LIMIT 10000

-- name: audit_plan_heads
SELECT kind, name FROM plan ORDER BY no

-- name: mend_plan_news
UPDATE plan SET news = max(seen, coalesce((SELECT max(no) FROM plan_news WHERE plan = plan.no), 0)),
	seen = coalesce((SELECT min(no) FROM plan_news WHERE plan = plan.no) - 1, seen) WHERE no = ?
