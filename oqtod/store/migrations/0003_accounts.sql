-- Users that log in elsewhere have no password, and their e-mail address is what somebody else says: it
-- identifies nobody, so it may be the same as another user's.
CREATE TABLE new_users (
    id            TEXT PRIMARY KEY,
    username      TEXT NOT NULL,
    email         TEXT NOT NULL,
    display_name  TEXT NOT NULL,
    avatar_url    TEXT,
    role          TEXT NOT NULL CHECK (role IN ('user', 'admin', 'service')),
    is_active     INTEGER NOT NULL DEFAULT 1,
    password_hash TEXT,                        -- bcrypt
    origin        TEXT NOT NULL CHECK (origin IN ('config', 'database', 'oidc')),
    configured    TEXT,                        -- what auth.dev_users said when it was applied; NULL: nothing
    generation    INTEGER NOT NULL DEFAULT 0,  -- tokens of another generation are void
    tokens_since  INTEGER NOT NULL DEFAULT 0,  -- seconds since the epoch; the provider's older tokens are void
    created_at    TEXT NOT NULL,
    last_login_at TEXT
);

INSERT INTO new_users
    (id, username, email, display_name, avatar_url, role, is_active, password_hash, origin, generation,
     created_at, last_login_at)
SELECT id, username, email, display_name, avatar_url, role, is_active, password_hash, 'config', generation,
     created_at, last_login_at FROM users;

DROP TABLE users;
ALTER TABLE new_users RENAME TO users;

CREATE UNIQUE INDEX users_username ON users (lower(username));
CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE origin <> 'oidc';

-- Who somebody is at an OpenID provider. Outlives its user, so that old tokens don't bring a deleted one back.
CREATE TABLE identities (
    issuer       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    user_id      TEXT REFERENCES users (id) ON DELETE SET NULL,
    tokens_since INTEGER NOT NULL DEFAULT 0,   -- as in users, for the time after the user
    PRIMARY KEY (issuer, subject)
);

CREATE INDEX identities_of_user ON identities (user_id);

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    key_prefix   TEXT NOT NULL,
    key_hash     TEXT NOT NULL UNIQUE,         -- SHA-256, hexadecimal
    scopes       TEXT NOT NULL,                -- JSON array
    created_at   TEXT NOT NULL,
    expires_at   TEXT,
    last_used_at TEXT,
    revoked_at   TEXT
);

CREATE INDEX api_keys_of_user ON api_keys (user_id, created_at);

CREATE TABLE invites (
    id             TEXT PRIMARY KEY,
    code_prefix    TEXT NOT NULL,
    code_hash      TEXT NOT NULL UNIQUE,       -- SHA-256, hexadecimal
    note           TEXT,
    created_by     TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    expires_at     TEXT,
    max_uses       INTEGER NOT NULL CHECK (max_uses > 0),
    uses_remaining INTEGER NOT NULL CHECK (uses_remaining >= 0),
    revoked_at     TEXT
);
