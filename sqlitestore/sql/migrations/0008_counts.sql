-- What is active and what waits of each key is counted only in queues with limits for keys or an order of theirs. A row that is
-- damaged stays so.

UPDATE keyed SET active = 0, waiting = 0, held = '{}', sum = rowsum(no, queue, key, tag, 0, 0, queued, until, '{}', arrivals)
WHERE (active <> 0 OR waiting <> 0) AND sum IS rowsum(no, queue, key, tag, waiting, active, queued, until, held, arrivals)
	AND queue IN (SELECT no FROM queue WHERE config IS NULL OR json_valid(config)
		AND coalesce(json_extract(config, '$.keys'), '') NOT IN ('hold', 'pass')
		AND NOT EXISTS (SELECT 1 FROM json_each(config, '$.limits') WHERE json_extract(value, '$.per_key')));
