-- With which report a row came, so that who is told what changed can tell what is new. Rows
-- from before this step are all as old as can be.
ALTER TABLE observation ADD COLUMN added INTEGER NOT NULL DEFAULT 0;
