-- What name servers told a container: a name it asked for, with an address it was given. It
-- has no counts: first and last join by min and max, whatever run tells them.
CREATE TABLE resolution (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- a number, so that reading them can be resumed
    container_id INTEGER NOT NULL,
    ip TEXT NOT NULL, -- as it stands in the rows of connections
    name TEXT NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    UNIQUE (container_id, ip, name)
) STRICT;

-- How far a collector has got with them.
ALTER TABLE peer ADD COLUMN resolution_id INTEGER NOT NULL DEFAULT 0;
