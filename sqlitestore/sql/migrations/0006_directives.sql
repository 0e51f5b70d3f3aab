-- What an operator has told a worker: '', quiet or stop.
ALTER TABLE worker ADD COLUMN directive TEXT NOT NULL DEFAULT '';
-- 1: no heartbeat has delivered it yet.
ALTER TABLE worker ADD COLUMN directed INTEGER NOT NULL DEFAULT 0;
