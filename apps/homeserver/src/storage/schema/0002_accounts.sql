-- Accounts of this server: users, devices, tokens, profiles, settings.

CREATE TABLE users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    -- argon2id in PHC format. NULL: no password opens the account.
    password_hash TEXT,
    created_ts    INTEGER NOT NULL,
    is_admin      INTEGER NOT NULL DEFAULT 0,
    -- 1: closed for good; the name is never given out again.
    deactivated   INTEGER NOT NULL DEFAULT 0,
    -- 1: the user asked to have what he wrote kept from people who join later.
    erased        INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE devices (
    user_id      TEXT    NOT NULL,
    device_id    TEXT    NOT NULL,
    display_name TEXT,
    created_ts   INTEGER NOT NULL,
    last_seen_ts INTEGER,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

-- SHA-256 of each access token: who reads the file cannot log in with it. Tokens have 256 bits of
-- randomness, so a plain hash will do, and finding one is one lookup.
CREATE TABLE access_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    created_ts INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX access_tokens_by_device ON access_tokens (user_id, device_id);

-- One row a field, as JSON: displayname, avatar_url, and whatever clients agree upon.
CREATE TABLE profile_fields (
    user_id TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) WITHOUT ROWID;

-- Global (room_id empty) and room account data. Tags of a room are its entry m.tag.
CREATE TABLE account_data (
    user_id   TEXT    NOT NULL,
    room_id   TEXT    NOT NULL,
    type      TEXT    NOT NULL,
    -- Position in the stream account_data.
    stream_id INTEGER NOT NULL,
    content   TEXT    NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
) WITHOUT ROWID;

CREATE INDEX account_data_by_stream ON account_data (user_id, stream_id);

-- The whole set of a user who changed something; others have the default.
CREATE TABLE push_rules (
    user_id   TEXT    NOT NULL PRIMARY KEY,
    -- Position in the stream push_rules.
    stream_id INTEGER NOT NULL,
    rules     TEXT    NOT NULL
) WITHOUT ROWID;

CREATE TABLE filters (
    user_id   TEXT    NOT NULL,
    filter_id INTEGER NOT NULL,
    json      TEXT    NOT NULL,
    PRIMARY KEY (user_id, filter_id)
) WITHOUT ROWID;

CREATE TABLE receipts (
    room_id      TEXT    NOT NULL,
    -- m.read, m.read.private
    receipt_type TEXT    NOT NULL,
    user_id      TEXT    NOT NULL,
    -- Empty: for the room as a whole; else "main" or the event that the thread hangs on.
    thread_id    TEXT    NOT NULL,
    event_id     TEXT    NOT NULL,
    ts           INTEGER NOT NULL,
    -- Position in the stream receipts.
    stream_id    INTEGER NOT NULL,
    PRIMARY KEY (room_id, receipt_type, user_id, thread_id)
) WITHOUT ROWID;

CREATE INDEX receipts_by_stream ON receipts (room_id, stream_id);

CREATE TABLE room_aliases (
    alias      TEXT    NOT NULL PRIMARY KEY,
    room_id    TEXT    NOT NULL,
    creator    TEXT    NOT NULL,
    created_ts INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX room_aliases_by_room ON room_aliases (room_id, alias);

CREATE TABLE registration_tokens (
    token        TEXT    NOT NULL PRIMARY KEY,
    -- NULL: any number of times.
    uses_allowed INTEGER,
    -- How many accounts were made with it.
    used         INTEGER NOT NULL DEFAULT 0,
    -- NULL: good for ever.
    expiry_ts    INTEGER
) WITHOUT ROWID;
