-- One row for each port that a live session holds: no two sessions can hold the same, whatever base they
-- were counted from. sessions.port_base and stream_port remember what a session had, to get it again.
CREATE TABLE ports (
    port       INTEGER PRIMARY KEY CHECK (port BETWEEN 1 AND 65535),
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE
);

CREATE INDEX ports_of_session ON ports (session_id);

WITH RECURSIVE block (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM block WHERE n < 12)
INSERT INTO ports (port, session_id) SELECT port_base + n, id FROM sessions, block WHERE port_base IS NOT NULL;

DROP INDEX sessions_ports;

ALTER TABLE sessions ADD COLUMN stream_port INTEGER;

-- last_activity_at as seconds of CLOCK_BOOTTIME, which nobody can set: how long a session has been idle.
ALTER TABLE sessions ADD COLUMN active_clock REAL NOT NULL DEFAULT 0;

CREATE INDEX sessions_by_status ON sessions (status, active_clock);

-- The boot that the live sessions belong to: random(4), /proc/sys/kernel/random/boot_id.
CREATE TABLE host (
    boot_id TEXT NOT NULL
);

-- Users who are being disabled or deleted: recorded first, so that it is finished whatever happens.
CREATE TABLE departures (
    user_id        TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    remove_account INTEGER NOT NULL,
    remove_home    INTEGER NOT NULL
);
