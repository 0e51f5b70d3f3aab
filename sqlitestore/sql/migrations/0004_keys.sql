-- Tasks with keys, and queues that go by deadlines.

ALTER TABLE lane ADD COLUMN flowing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;

CREATE TABLE share (
	queue     INTEGER PRIMARY KEY,
	virtual   INTEGER NOT NULL,
	plain     INTEGER NOT NULL,
	arrivals  TEXT NOT NULL
) STRICT;

CREATE TABLE queued (
	seq   INTEGER PRIMARY KEY,
	lane  INTEGER NOT NULL,
	prio  INTEGER NOT NULL,
	key   INTEGER NOT NULL,
	rank  INTEGER NOT NULL,
	ord   INTEGER NOT NULL
) STRICT;
CREATE INDEX queued_line ON queued (lane, prio, key, rank, ord);

CREATE TABLE keyed (
	no        INTEGER PRIMARY KEY,
	queue     INTEGER NOT NULL,
	key       TEXT NOT NULL,
	tag       INTEGER NOT NULL,
	waiting   INTEGER NOT NULL,
	active    INTEGER NOT NULL,
	queued    INTEGER NOT NULL,
	until     INTEGER NOT NULL,
	held      TEXT NOT NULL,
	arrivals  TEXT NOT NULL,
	UNIQUE (queue, key)
) STRICT;

CREATE TABLE flow (
	key     INTEGER NOT NULL,
	lane    INTEGER NOT NULL,
	prio    INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	tag     INTEGER NOT NULL,
	rank    INTEGER NOT NULL,
	head    INTEGER NOT NULL,
	parked  INTEGER NOT NULL,
	opens   INTEGER,
	PRIMARY KEY (key, lane, prio)
) STRICT, WITHOUT ROWID;
CREATE INDEX flow_line ON flow (lane, prio, tag, head) WHERE parked = 0;
CREATE INDEX flow_parked ON flow (lane) WHERE parked = 1;
CREATE INDEX flow_opens ON flow (lane, opens) WHERE opens IS NOT NULL;
