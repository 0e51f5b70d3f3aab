-- Plans: their heads, bodies and parts, news and signals.

-- name: plan_get
SELECT * FROM plan WHERE kind = ? AND name = ?

-- name: plan_insert
-- It is saved at once.
INSERT INTO plan (kind, name, state, version, created, updated, news, seen, reserved) VALUES (?, ?, '', 0, 0, 0, 0, 0, 0)

-- name: plan_last
SELECT last_insert_rowid()

-- name: plan_save
UPDATE plan SET version = ?4, state = ?5, wake = ?6, expires = ?7, created = ?8, updated = ?9, news = ?10, seen = ?11, reserved = ?12, at = ?13, sum = ?14
WHERE no = ?1

-- name: plan_aside
-- A plan that is damaged is not thought of until it is repaired. Its checksum stays wrong.
UPDATE plan SET at = NULL, sum = NULL WHERE kind = ? AND name = ?

-- name: plan_first
SELECT at FROM plan WHERE at IS NOT NULL ORDER BY at LIMIT 1

-- name: plan_due
SELECT kind, name FROM plan WHERE at IS NOT NULL AND at <= ? ORDER BY at LIMIT ?

-- name: plan_expired
SELECT * FROM plan WHERE at IS NOT NULL AND at <= ?1 AND expires <= ?1 LIMIT ?2

-- name: plan_list
SELECT name FROM plan WHERE kind = ? AND name > ? AND name >= ? ORDER BY name LIMIT ?

-- name: plan_delete
DELETE FROM plan WHERE no = ?

-- name: plan_part_put
INSERT INTO plan_part (plan, name, bytes, sum) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET bytes = ?3, sum = ?4

-- name: plan_part_drop
DELETE FROM plan_part WHERE plan = ? AND name = ?

-- name: plan_part_get
SELECT * FROM plan_part WHERE plan = ? AND name = ?

-- name: plan_part_all
SELECT * FROM plan_part WHERE plan = ? AND name <> '' ORDER BY name

-- name: plan_part_delete
DELETE FROM plan_part WHERE plan = ?

-- name: plan_news_put
INSERT INTO plan_news (plan, no, packed, sum) VALUES (?, ?, ?, ?)

-- name: plan_news_get
SELECT * FROM plan_news WHERE plan = ? AND no > ? ORDER BY no LIMIT ?

-- name: plan_news_drop
DELETE FROM plan_news WHERE plan = ? AND no <= ?

-- name: plan_news_delete
DELETE FROM plan_news WHERE plan = ?

-- name: plan_signal_put
INSERT INTO plan_signal (plan, id, no, sum) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: plan_signal_next
SELECT 1 + coalesce(max(no), 0) FROM plan_signal WHERE plan = ?

-- name: plan_signal_known
SELECT * FROM plan_signal WHERE plan = ? AND id = ?

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
-- Of a plan, which says seen and news: what it should say.
SELECT coalesce((SELECT min(no) FROM plan_news WHERE plan = ?1) - 1, ?2),
	max(?2, coalesce((SELECT max(no) FROM plan_news WHERE plan = ?1), 0))
