-- Rooms, events, the event graph and state.
--
-- Inside, an event goes by its stream ordering: a unique integer that never changes (events fetched
-- from the past count downwards from -1). Rooms go by an integer too. Text ids appear once.

-- How far each stream has come; written with every commit that moved it, so that deleting the last
-- rows of a stream cannot move it back.
CREATE TABLE stream_positions (
    stream   TEXT    NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE rooms (
    room         INTEGER NOT NULL PRIMARY KEY,
    room_id      TEXT    NOT NULL UNIQUE,
    room_version TEXT    NOT NULL,
    -- Who sent the create event.
    creator      TEXT    NOT NULL,
    -- How far back we hold history: it can only fall. NULL until the first event.
    min_depth    INTEGER,
    -- Whether the room directory lists it.
    is_public    INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX rooms_public ON rooms (room) WHERE is_public = 1;

CREATE TABLE events (
    stream_ordering  INTEGER NOT NULL PRIMARY KEY,
    event_id         TEXT    NOT NULL UNIQUE,
    room             INTEGER NOT NULL REFERENCES rooms (room),
    depth            INTEGER NOT NULL,
    type             TEXT    NOT NULL,
    -- NULL: not a state event.
    state_key        TEXT,
    sender           TEXT    NOT NULL,
    origin_server_ts INTEGER NOT NULL,
    -- When we first had it, in ms since 1970.
    received_ts      INTEGER NOT NULL,
    -- 1: known, but the state at it is not; not part of the timeline.
    outlier          INTEGER NOT NULL DEFAULT 0,
    -- Why it failed authorisation; NULL: it did not.
    rejected         TEXT,
    -- 1: passed on its own ground but not against the current state.
    soft_failed      INTEGER NOT NULL DEFAULT 0,
    -- The state before it, and after it. Rejected events leave the state as it was. Both are NULL for
    -- outliers, `state_before` for create events, too.
    state_before     INTEGER,
    state_after      INTEGER,
    -- For a state event, the event that it replaced in the state before it.
    replaces         INTEGER,
    -- Of state events: one more than the greatest of their auth events. Falls strictly along auth
    -- edges, which `depth` from the network need not do.
    auth_height      INTEGER,
    -- The client's transaction that sent it; forgotten after a day.
    device_id        TEXT,
    txn_id           TEXT,
    -- Canonical JSON in federation format, exactly as hashed and signed.
    json             TEXT    NOT NULL
);

-- What rooms show, by arrival and by place in the graph. Queries must repeat the condition.
CREATE INDEX events_by_arrival ON events (room, stream_ordering)
    WHERE outlier = 0 AND rejected IS NULL AND soft_failed = 0;
CREATE INDEX events_by_depth ON events (room, depth, stream_ordering)
    WHERE outlier = 0 AND rejected IS NULL AND soft_failed = 0;
CREATE UNIQUE INDEX events_by_transaction ON events (room, sender, device_id, txn_id, type)
    WHERE txn_id IS NOT NULL;

-- The graph: prev events that we have in full, by integer.
CREATE TABLE event_edges (
    prev  INTEGER NOT NULL,
    event INTEGER NOT NULL,
    PRIMARY KEY (prev, event)
) WITHOUT ROWID;

-- Prev events that we do not have in full. Those of accepted events are the backward extremities.
CREATE TABLE event_edges_missing (
    prev_event_id TEXT    NOT NULL,
    event         INTEGER NOT NULL,
    room          INTEGER NOT NULL,
    PRIMARY KEY (prev_event_id, event)
) WITHOUT ROWID;

CREATE INDEX event_edges_missing_by_room ON event_edges_missing (room, prev_event_id);

-- Auth events of state events, for walking auth chains; those of other events are in their JSON.
CREATE TABLE event_auth (
    event INTEGER NOT NULL,
    auth  INTEGER NOT NULL,
    PRIMARY KEY (event, auth)
) WITHOUT ROWID;

-- Ends of the graph, now and in the past: `until` is the stream ordering of the change that made it
-- an inner event, and the greatest integer while it is an end.
CREATE TABLE forward_extremities (
    room  INTEGER NOT NULL,
    until INTEGER NOT NULL,
    event INTEGER NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (room, until, event)
) WITHOUT ROWID;

-- States, immutable. A group is its own rows over those of its predecessor, if it has one.
CREATE TABLE state_groups (
    state_group  INTEGER NOT NULL PRIMARY KEY,
    room         INTEGER NOT NULL,
    predecessor  INTEGER,
    -- How many predecessors there are before a whole state.
    chain_length INTEGER NOT NULL
);

CREATE TABLE state_group_entries (
    state_group INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    state_key   TEXT    NOT NULL,
    event       INTEGER NOT NULL,
    PRIMARY KEY (state_group, type, state_key)
) WITHOUT ROWID;

-- The state at the ends of the graph, resolved.
CREATE TABLE current_state (
    room       INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    state_key  TEXT    NOT NULL,
    event      INTEGER NOT NULL,
    -- Of member events only.
    membership TEXT,
    PRIMARY KEY (room, type, state_key)
) WITHOUT ROWID;

-- Rooms of a user, whichever server he is on.
CREATE INDEX current_state_by_member ON current_state (state_key, membership, room)
    WHERE type = 'm.room.member';

-- Members of a room, without walking over those who have left.
CREATE INDEX current_state_by_membership ON current_state (room, membership, state_key)
    WHERE type = 'm.room.member';

-- How the current state changed, at which position of the events stream. NULL: no entry.
CREATE TABLE current_state_deltas (
    stream_id INTEGER NOT NULL,
    room      INTEGER NOT NULL,
    type      TEXT    NOT NULL,
    state_key TEXT    NOT NULL,
    event     INTEGER,
    previous  INTEGER,
    PRIMARY KEY (room, stream_id, type, state_key)
) WITHOUT ROWID;

CREATE INDEX current_state_deltas_by_stream ON current_state_deltas (stream_id);

-- Every accepted member event.
CREATE TABLE room_memberships (
    event       INTEGER NOT NULL PRIMARY KEY,
    room        INTEGER NOT NULL,
    user_id     TEXT    NOT NULL,
    sender      TEXT    NOT NULL,
    membership  TEXT    NOT NULL,
    displayname TEXT,
    avatar_url  TEXT
);

CREATE INDEX room_memberships_by_user ON room_memberships (user_id, room, event);

-- The latest membership of our own users, kept after we have left the room.
CREATE TABLE local_current_membership (
    user_id    TEXT    NOT NULL,
    room       INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    membership TEXT    NOT NULL,
    -- Position of the events stream at which this became so.
    stream_id  INTEGER NOT NULL,
    -- 1: the user has left and does not want to see the room again.
    forgotten  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, room)
) WITHOUT ROWID;

CREATE INDEX local_current_membership_by_room ON local_current_membership (room, membership);

CREATE TABLE redactions (
    -- The redaction, and what it wants redacted, which may be unknown yet.
    event           INTEGER NOT NULL PRIMARY KEY,
    room            INTEGER NOT NULL,
    target_event_id TEXT    NOT NULL,
    -- 1: the sender's power sufficed when it was checked; 0: applies only if the senders' servers match.
    has_power       INTEGER NOT NULL,
    -- 1: nothing is left of what it redacts, or it never applied and is old enough to be done with.
    settled         INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX redactions_by_target ON redactions (target_event_id);
CREATE INDEX redactions_unsettled ON redactions (event) WHERE settled = 0;

CREATE TABLE event_relations (
    event             INTEGER NOT NULL PRIMARY KEY,
    room              INTEGER NOT NULL,
    relates_to_id     TEXT    NOT NULL,
    relation_type     TEXT    NOT NULL,
    aggregation_key   TEXT
);

CREATE INDEX event_relations_by_target ON event_relations (relates_to_id, relation_type, event);
