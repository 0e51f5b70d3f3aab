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
	UNIQUE (kind, name)
) STRICT;
CREATE INDEX plan_at ON plan (at) WHERE at IS NOT NULL;

CREATE TABLE plan_part (
	plan   INTEGER NOT NULL,
	name   TEXT NOT NULL,
	bytes  BLOB NOT NULL,
	PRIMARY KEY (plan, name)
) STRICT;

CREATE TABLE plan_news (
	plan    INTEGER NOT NULL,
	no      INTEGER NOT NULL,
	packed  BLOB NOT NULL, -- driver.AppendNews
	PRIMARY KEY (plan, no)
) STRICT;

-- The newest signals of each plan, so that one that is repeated is known.
CREATE TABLE plan_signal (
	plan  INTEGER NOT NULL,
	id    TEXT NOT NULL,
	no    INTEGER NOT NULL, -- order of coming
	PRIMARY KEY (plan, id)
) STRICT, WITHOUT ROWID;
