CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    username      TEXT NOT NULL UNIQUE,
    email         TEXT NOT NULL UNIQUE,
    display_name  TEXT NOT NULL,
    avatar_url    TEXT,
    role          TEXT NOT NULL CHECK (role IN ('user', 'admin', 'service')),
    is_active     INTEGER NOT NULL DEFAULT 1,
    password_hash TEXT NOT NULL,
    origin        TEXT NOT NULL,               -- where the user is kept: 'config' for auth.dev_users
    generation    INTEGER NOT NULL DEFAULT 0,  -- tokens of an earlier generation are void
    created_at    TEXT NOT NULL,
    last_login_at TEXT
);

CREATE TABLE revoked_tokens (
    jti        TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL                -- seconds since the epoch; the row is of no use after that
);

CREATE TABLE sessions (
    id               TEXT PRIMARY KEY,
    readable_id      TEXT NOT NULL UNIQUE,
    user_id          TEXT NOT NULL REFERENCES users (id),
    linux_user       TEXT,
    workspace_path   TEXT NOT NULL,
    image            TEXT NOT NULL,
    environment      TEXT NOT NULL,            -- JSON object
    status           TEXT NOT NULL CHECK (status IN
                         ('pending', 'starting', 'running', 'stopping', 'stopped', 'failed')),
    port_base        INTEGER,                  -- first port of the block; held while the session lives
    error_message    TEXT,
    created_at       TEXT NOT NULL,
    started_at       TEXT,
    stopped_at       TEXT,
    last_activity_at TEXT NOT NULL
);

CREATE INDEX sessions_of_user ON sessions (user_id, created_at);
CREATE UNIQUE INDEX sessions_ports ON sessions (port_base) WHERE port_base IS NOT NULL;
