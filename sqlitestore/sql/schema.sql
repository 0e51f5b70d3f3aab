-- The schema that the migrations end at. It is documentation and what a test compares them with: a store is made and
-- brought up to date by the files in migrations/ alone.
--
-- A task's row in `task` is written once and never changed. Where the task stands is told by which other table holds
-- its seq: exactly one of ready or queued (available), due (scheduled, retryable), pending, held (active) and ended. What a plain
-- task never needs (failures, crashes, history, a state other than the one it was enqueued in) is in `meta`.
-- Times are milliseconds since 1970, in UTC.

CREATE TABLE store (
	one          INTEGER PRIMARY KEY CHECK (one = 1),
	incarnation  TEXT NOT NULL,
	next_seq     INTEGER NOT NULL, -- of tasks, of places in line and of ends
	next_token   INTEGER NOT NULL, -- of claims
	next_event   INTEGER NOT NULL,
	event_bytes  INTEGER NOT NULL,
	next_worker  INTEGER NOT NULL,
	sums_from    INTEGER NOT NULL DEFAULT 1, -- tasks before this seq may have rows without a sum
	changes      INTEGER NOT NULL DEFAULT 0, -- of queues and lanes that no event names
	sum          INTEGER                     -- as of all rows that belong to no single task: see rowsums.go
) STRICT;

CREATE TABLE queue (
	no              INTEGER PRIMARY KEY,
	name            TEXT NOT NULL UNIQUE,
	config          TEXT,          -- JSON of driver.QueueConfig; NULL: the defaults
	kept_completed  INTEGER NOT NULL DEFAULT 0, -- bytes of payloads and results
	kept_cancelled  INTEGER NOT NULL DEFAULT 0,
	kept_discarded  INTEGER NOT NULL DEFAULT 0,
	enqueued        INTEGER NOT NULL DEFAULT 0, -- totals over the queue's life
	retried         INTEGER NOT NULL DEFAULT 0,
	completed       INTEGER NOT NULL DEFAULT 0,
	cancelled       INTEGER NOT NULL DEFAULT 0,
	discarded       INTEGER NOT NULL DEFAULT 0,
	failed          INTEGER NOT NULL DEFAULT 0,
	crashed         INTEGER NOT NULL DEFAULT 0,
	deleted_live    INTEGER NOT NULL DEFAULT 0,
	sum             INTEGER
) STRICT;

-- A lane is a queue and a type. The counts are of the tasks in each state.
CREATE TABLE lane (
	no         INTEGER PRIMARY KEY,
	queue      INTEGER NOT NULL,
	type       TEXT NOT NULL,
	scheduled  INTEGER NOT NULL DEFAULT 0,
	pending    INTEGER NOT NULL DEFAULT 0,
	available  INTEGER NOT NULL DEFAULT 0,
	active     INTEGER NOT NULL DEFAULT 0,
	retryable  INTEGER NOT NULL DEFAULT 0,
	completed  INTEGER NOT NULL DEFAULT 0,
	cancelled  INTEGER NOT NULL DEFAULT 0,
	discarded  INTEGER NOT NULL DEFAULT 0,
	expiring   INTEGER NOT NULL DEFAULT 0, -- rows in expiry
	flowing    INTEGER NOT NULL DEFAULT 0, -- rows in queued
	parked     INTEGER NOT NULL DEFAULT 0, -- of these, in flows that are parked
	sum        INTEGER,
	UNIQUE (queue, type)
) STRICT;

CREATE TABLE task (
	seq          INTEGER PRIMARY KEY,
	id           BLOB NOT NULL UNIQUE, -- driver.PackID
	lane         INTEGER NOT NULL,
	prio         INTEGER NOT NULL,
	born         TEXT,                 -- the state it was enqueued in; NULL: available
	uniq         TEXT,                 -- until when it owns its unique key; NULL: it has none
	enqueued_at  INTEGER NOT NULL,
	at           INTEGER,              -- when it was due; NULL: enqueued_at
	expires      INTEGER,
	sum          INTEGER NOT NULL,     -- 2^32 + CRC-32C of the row; before 2^32: of id, envelope and payload
	envelope     BLOB NOT NULL,        -- driver.AppendEnvelope
	payload      BLOB NOT NULL
) STRICT;

CREATE TABLE ready (
	lane  INTEGER NOT NULL,
	prio  INTEGER NOT NULL,
	ord   INTEGER NOT NULL, -- place in line
	seq   INTEGER NOT NULL,
	PRIMARY KEY (lane, prio, ord)
) STRICT, WITHOUT ROWID;

CREATE TABLE due (
	seq   INTEGER PRIMARY KEY,
	lane  INTEGER NOT NULL,
	at    INTEGER NOT NULL
) STRICT;
CREATE INDEX due_lane ON due (lane, at);

CREATE TABLE pending (
	seq   INTEGER PRIMARY KEY,
	lane  INTEGER NOT NULL
) STRICT;

-- The available tasks that expire.
CREATE TABLE expiry (
	lane  INTEGER NOT NULL,
	at    INTEGER NOT NULL,
	seq   INTEGER NOT NULL,
	PRIMARY KEY (lane, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE held (
	seq         INTEGER PRIMARY KEY,
	worker      INTEGER NOT NULL,
	token       INTEGER NOT NULL,
	lane        INTEGER NOT NULL,
	prio        INTEGER NOT NULL,
	ord         INTEGER NOT NULL, -- where it stood in line, for when it is given back
	claimed_at  INTEGER NOT NULL,
	cancel      INTEGER NOT NULL, -- 1: cancellation was asked for, 2: and the worker told
	reported    INTEGER NOT NULL, -- 1: it has a row in report
	sum         INTEGER           -- of the row: heldSum
) STRICT;
CREATE INDEX held_cancel ON held (worker) WHERE cancel > 0;

CREATE TABLE ended (
	seq         INTEGER PRIMARY KEY,
	queue       INTEGER NOT NULL,
	lane        INTEGER NOT NULL,
	state       TEXT NOT NULL,
	ord         INTEGER NOT NULL, -- order of ending
	ended_at    INTEGER NOT NULL,
	bytes       INTEGER NOT NULL, -- of payload and result
	reason      TEXT,
	token       INTEGER NOT NULL, -- of the last claim; 0: none
	settled     INTEGER NOT NULL, -- 1: that claim ended by a settlement
	worker      INTEGER NOT NULL,
	claimed_at  INTEGER NOT NULL,
	attempt     INTEGER NOT NULL,
	extra       INTEGER NOT NULL, -- 0: it has no rows in meta and report
	started     INTEGER,          -- of an attempt that completed it and is not in meta.history
	encoding    TEXT,             -- of the result
	result      BLOB,
	sum         INTEGER           -- of the row: endedSum
) STRICT;
CREATE INDEX ended_kept ON ended (queue, state, ord);

CREATE TABLE meta (
	seq         INTEGER PRIMARY KEY,
	state       TEXT NOT NULL,    -- its state when this row was written: true unless it is in held or ended
	at          INTEGER NOT NULL, -- when it is or was due
	ord         INTEGER NOT NULL, -- its place in line while available
	attempt     INTEGER NOT NULL, -- attempts spent
	crashes     INTEGER NOT NULL,
	token       INTEGER NOT NULL, -- of the last claim that is over; 0: none
	settled     INTEGER NOT NULL, -- 1: that claim ended by a settlement
	worker      INTEGER NOT NULL,
	claimed_at  INTEGER NOT NULL,
	history     TEXT,             -- JSON list of driver.Attempt
	sum         INTEGER           -- of the row: metaSum
) STRICT;

CREATE TABLE report (
	seq       INTEGER PRIMARY KEY,
	progress  TEXT, -- JSON of driver.Progress
	logs      TEXT, -- JSON list of driver.LogLine
	sum       INTEGER -- of the row: reportSum
) STRICT;

CREATE TABLE uniq (
	key      BLOB PRIMARY KEY,
	seq      INTEGER NOT NULL,
	id       BLOB NOT NULL,
	until    TEXT NOT NULL,
	expires  INTEGER, -- with until ttl: the owner may be gone before
	sum      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX uniq_expires ON uniq (expires) WHERE expires IS NOT NULL;

CREATE TABLE worker (
	no         INTEGER PRIMARY KEY,
	id         TEXT NOT NULL UNIQUE,
	life       TEXT NOT NULL, -- alive, lost (its tasks are being recovered) or gone
	lease_end  INTEGER NOT NULL, -- of one that is gone: when it went
	since      INTEGER NOT NULL,
	host       TEXT NOT NULL,
	build      TEXT NOT NULL,
	info       TEXT NOT NULL, -- JSON of driver.WorkerInfo
	directive  TEXT NOT NULL DEFAULT '', -- driver.Directive
	directed   INTEGER NOT NULL DEFAULT 0, -- 1: no heartbeat has delivered it yet
	sum        INTEGER
) STRICT;
CREATE INDEX worker_lease ON worker (lease_end) WHERE life <> 'gone';
CREATE INDEX worker_gone ON worker (lease_end) WHERE life = 'gone';

-- One row holds the events of one transaction, or a part of them.
CREATE TABLE event (
	no      INTEGER PRIMARY KEY, -- of its first event
	n       INTEGER NOT NULL,
	packed  BLOB NOT NULL,       -- driver.AppendEvents
	sum     INTEGER
) STRICT;

-- Plans. A part without a name is the plan's body. What waits is news from seen+1 to news.
CREATE TABLE plan (
	no        INTEGER PRIMARY KEY,
	kind      TEXT NOT NULL,
	name      TEXT NOT NULL,
	version   INTEGER NOT NULL,
	state     TEXT NOT NULL,
	wake      INTEGER,
	expires   INTEGER,
	created   INTEGER NOT NULL,
	updated   INTEGER NOT NULL,
	news      INTEGER NOT NULL, -- number of its newest news
	seen      INTEGER NOT NULL, -- of the newest that a step has dealt with
	reserved  INTEGER NOT NULL, -- until then it is another worker's to look at
	at        INTEGER,          -- when it is to be thought of, see driver.Plan.Place
	sum       INTEGER,
	UNIQUE (kind, name)
) STRICT;
CREATE INDEX plan_at ON plan (at) WHERE at IS NOT NULL;

CREATE TABLE plan_part (
	plan   INTEGER NOT NULL,
	name   TEXT NOT NULL,
	bytes  BLOB NOT NULL,
	sum    INTEGER,
	PRIMARY KEY (plan, name)
) STRICT;

CREATE TABLE plan_news (
	plan    INTEGER NOT NULL,
	no      INTEGER NOT NULL,
	packed  BLOB NOT NULL, -- driver.AppendNews
	sum     INTEGER,
	PRIMARY KEY (plan, no)
) STRICT;

-- The newest signals of each plan, so that one that is repeated is known.
CREATE TABLE plan_signal (
	plan  INTEGER NOT NULL,
	id    TEXT NOT NULL,
	no    INTEGER NOT NULL, -- order of coming
	sum   INTEGER,
	PRIMARY KEY (plan, id)
) STRICT, WITHOUT ROWID;

-- Of queues that have or had tasks with keys, or limits of their own rate: see driver.TagServed and driver.Arrival.
CREATE TABLE share (
	queue     INTEGER PRIMARY KEY,
	virtual   INTEGER NOT NULL,
	plain     INTEGER NOT NULL, -- the tag of the tasks without a key
	arrivals  TEXT NOT NULL,    -- JSON: driver.Limit.RateKey to driver.Arrival
	sum       INTEGER
) STRICT;

-- The available tasks that have a key, and all of a queue that goes by deadlines.
CREATE TABLE queued (
	seq   INTEGER PRIMARY KEY,
	lane  INTEGER NOT NULL,
	prio  INTEGER NOT NULL,
	key   INTEGER NOT NULL,
	rank  INTEGER NOT NULL, -- the deadline where the queue goes by those, else 0
	ord   INTEGER NOT NULL  -- place in line
) STRICT;
CREATE INDEX queued_line ON queued (lane, prio, key, rank, ord);

-- A key of a queue, while it has tasks there that have not ended, or a tag or a rate that is ahead.
CREATE TABLE keyed (
	no        INTEGER PRIMARY KEY,
	queue     INTEGER NOT NULL,
	key       TEXT NOT NULL,
	tag       INTEGER NOT NULL,
	waiting   INTEGER NOT NULL, -- its scheduled and retryable tasks that were claimed before; as held 0 where nothing asks for it
	active    INTEGER NOT NULL,
	queued    INTEGER NOT NULL,
	until     INTEGER NOT NULL, -- when its rates are as if it had never started a task
	held      TEXT NOT NULL,    -- JSON: lane to active tasks
	arrivals  TEXT NOT NULL,    -- as in share
	sum       INTEGER,
	UNIQUE (queue, key)
) STRICT;

-- The queued tasks of a key that have one lane and priority. One that is parked is not looked at by claims.
CREATE TABLE flow (
	key     INTEGER NOT NULL,
	lane    INTEGER NOT NULL,
	prio    INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	tag     INTEGER NOT NULL, -- its key's, or the rank of its first task
	rank    INTEGER NOT NULL, -- of its first task
	head    INTEGER NOT NULL, -- place of its first task
	parked  INTEGER NOT NULL,
	opens   INTEGER,          -- when a rate lets it start, if nothing but rates keeps it
	sum     INTEGER,
	PRIMARY KEY (key, lane, prio)
) STRICT, WITHOUT ROWID;
CREATE INDEX flow_line ON flow (lane, prio, tag, head) WHERE parked = 0;
CREATE INDEX flow_parked ON flow (lane) WHERE parked = 1;
CREATE INDEX flow_opens ON flow (lane, opens) WHERE opens IS NOT NULL;
