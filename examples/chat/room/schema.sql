-- The rooms of a chat whose store is a SQLite file, in a file beside it.
CREATE TABLE IF NOT EXISTS message (
  room   TEXT NOT NULL,
  id     TEXT NOT NULL,
  sum    TEXT NOT NULL,
  number INTEGER, -- once it has one
  PRIMARY KEY (room, id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS chunk (
  room TEXT NOT NULL,
  id   TEXT NOT NULL,
  n    INTEGER NOT NULL,
  chunk TEXT NOT NULL,
  PRIMARY KEY (room, id, n)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS log (
  room   TEXT NOT NULL,
  number INTEGER NOT NULL,
  entry  TEXT NOT NULL,
  PRIMARY KEY (room, number)
) WITHOUT ROWID;

-- What happened lately, for those that watch.
CREATE TABLE IF NOT EXISTS hint (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  room   TEXT NOT NULL,
  hint   TEXT NOT NULL
);
