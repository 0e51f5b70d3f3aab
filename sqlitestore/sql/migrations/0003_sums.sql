-- Checksums of all that is stored of a task. Rows that were written before have none: see sums_from.
ALTER TABLE ended ADD COLUMN sum INTEGER;
ALTER TABLE meta ADD COLUMN sum INTEGER;
ALTER TABLE held ADD COLUMN sum INTEGER;
ALTER TABLE report ADD COLUMN sum INTEGER;
ALTER TABLE store ADD COLUMN sums_from INTEGER NOT NULL DEFAULT 1;
UPDATE store SET sums_from = next_seq;
