-- Times (_ns) are nanoseconds since 1970. Kinds, protocols, statuses, access bits and
-- loss reasons are the numbers of the model; a new one needs a new schema version, so
-- that an older program refuses the file instead of misreading it.

-- One life of an agent. Later runs have higher ids, and an id is never used again:
-- rows compare them.
CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    boot TEXT NOT NULL,
    node TEXT NOT NULL,
    hooks TEXT NOT NULL,
    started_ns INTEGER NOT NULL,
    last_alive_ns INTEGER NOT NULL,
    ended_cleanly INTEGER NOT NULL
) STRICT;

-- run_id is the newest run that reported the container. No older run may any more.
-- The defaults are those of a container that was counted but not described (yet).
CREATE TABLE container (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    cgroup INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    node TEXT NOT NULL,
    runtime TEXT NOT NULL DEFAULT '',
    runtime_id TEXT NOT NULL DEFAULT '',
    name TEXT NOT NULL DEFAULT '',
    image TEXT NOT NULL DEFAULT '',
    namespace TEXT NOT NULL DEFAULT '',
    pod TEXT NOT NULL DEFAULT '',
    pod_uid TEXT NOT NULL DEFAULT '',
    workload_kind TEXT NOT NULL DEFAULT '',
    workload_name TEXT NOT NULL DEFAULT '',
    labels TEXT NOT NULL DEFAULT '{}', -- a JSON object of texts
    cgroup_path TEXT NOT NULL DEFAULT '',
    watched_since_ns INTEGER,
    present_at_start INTEGER NOT NULL DEFAULT 0,
    ended_ns INTEGER,
    history_since_ns INTEGER,
    UNIQUE (boot, cgroup, incarnation)
) STRICT;

CREATE INDEX container_by_namespace ON container (namespace);
CREATE INDEX container_by_end ON container (ended_ns) WHERE ended_ns IS NOT NULL;

-- Executables, paths and addresses, each once: replicas of a workload share nearly all.
CREATE TABLE text (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

-- Clustered by container, so that a container's rows are neighbours for reports,
-- summaries and removal. References are not declared: checking them on every row costs
-- more than the row, and one place only writes them.
CREATE TABLE observation (
    container_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    source_id INTEGER NOT NULL,
    target_id INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    port INTEGER NOT NULL,
    access INTEGER NOT NULL,
    status INTEGER NOT NULL,
    base INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    example TEXT NOT NULL,
    PRIMARY KEY (container_id, kind, source_id, target_id, protocol, port, access, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE loss (
    container_id INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    base INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (container_id, reason)
) STRICT, WITHOUT ROWID;

-- ip is 4 or 16 bytes in network order.
CREATE TABLE endpoint (
    ip BLOB NOT NULL,
    from_ns INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    until_ns INTEGER,
    PRIMARY KEY (ip, from_ns, namespace, name)
) STRICT, WITHOUT ROWID;

-- One row: retention removed containers that ended before this time.
CREATE TABLE history (
    since_ns INTEGER
) STRICT;
INSERT INTO history VALUES (NULL);
