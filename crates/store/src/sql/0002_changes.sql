-- What changed since when, so that a collector can be told. Every report has a number,
-- the spool's sequence, and whatever it touched carries that number as `changed`. Rows
-- from before this step are all as old as can be.
--
-- Only containers are searched by it: their rows are neighbours anyway, and an index over
-- all rows would have to be rewritten with every count.

-- One row. The identity is the file's, and no other file's.
CREATE TABLE spool (
    identity TEXT NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO spool VALUES (lower(hex(randomblob(16))), 0);

ALTER TABLE run ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE observation ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE loss ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;

-- Apart from the container's description, which is a hundred times as wide. unsent_events
-- were counted by rows that retention removed before some collector had them.
CREATE TABLE container_change (
    container_id INTEGER PRIMARY KEY,
    changed INTEGER NOT NULL,
    unsent_events INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO container_change (container_id, changed) SELECT id, 0 FROM container;

-- With a number, so that reading them can be resumed.
ALTER TABLE endpoint RENAME TO endpoint_before;
CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ip BLOB NOT NULL,
    from_ns INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    until_ns INTEGER,
    changed INTEGER NOT NULL,
    UNIQUE (ip, from_ns, namespace, name)
) STRICT;
INSERT INTO endpoint (ip, from_ns, namespace, name, labels, until_ns, changed)
    SELECT ip, from_ns, namespace, name, labels, until_ns, 0 FROM endpoint_before;
DROP TABLE endpoint_before;

-- The collectors that are told, and how far each has got: it has all that changed up to
-- `after`, and of what changed up to `until` the runs and endpoints up to run_id and
-- endpoint_id and the containers before container_id. `stamp` is that of the last report it acknowledged;
-- removed_unsent counts rows that retention removed before it had them.
CREATE TABLE peer (
    name TEXT PRIMARY KEY,
    after INTEGER NOT NULL,
    until INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    endpoint_id INTEGER NOT NULL,
    container_id INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    removed_unsent INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
