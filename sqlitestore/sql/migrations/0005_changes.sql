-- Counts the changes of queues and lanes that no event names. With the event log it tells a process what to read again.
ALTER TABLE store ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;
