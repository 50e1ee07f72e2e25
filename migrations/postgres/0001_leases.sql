-- Times are microseconds since 1970, documents are JSON. The same tables as in ../sqlite, under the same number.
-- Ids are ordered byte by byte, as there.

CREATE TABLE installation (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id TEXT COLLATE "C" NOT NULL,
    -- Where the objects of its open leases are.
    cluster_kind TEXT
);

-- How many leases of an owner have not ended. An admission begins by raising it.
CREATE TABLE owners (
    owner TEXT NOT NULL PRIMARY KEY,
    leases BIGINT NOT NULL CHECK (leases >= 0)
);

CREATE TABLE leases (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    namespace TEXT NOT NULL,
    placement TEXT NOT NULL,
    request_id TEXT,
    request_digest TEXT,
    created_at BIGINT NOT NULL,
    -- Intent: what should be.
    spec TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    generation BIGINT NOT NULL,
    -- Report: what was seen.
    phase TEXT NOT NULL,
    message TEXT NOT NULL,
    desired_replicas BIGINT NOT NULL,
    current_replicas BIGINT NOT NULL,
    ready_replicas BIGINT NOT NULL,
    models TEXT NOT NULL,
    first_ready_at BIGINT,
    closed_at BIGINT,
    -- Of both, and what follows from them.
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    due_at BIGINT
);

CREATE UNIQUE INDEX leases_by_request ON leases (owner, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX leases_by_age ON leases (created_at, id);
CREATE INDEX leases_by_owner ON leases (owner, created_at, id);
CREATE INDEX leases_by_owner_and_id ON leases (owner, id);
CREATE INDEX leases_by_state ON leases (state, created_at, id);
CREATE INDEX leases_due ON leases (due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX leases_open ON leases (id) WHERE closed_at IS NULL;
CREATE INDEX leases_open_by_owner ON leases (owner, created_at, id) WHERE closed_at IS NULL;

-- Apart from its lease, because it is large and hardly ever changes.
CREATE TABLE deployments (
    lease_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES leases (id),
    deployment TEXT NOT NULL
);

CREATE TABLE lease_labels (
    lease_id TEXT COLLATE "C" NOT NULL REFERENCES leases (id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (lease_id, key)
);

CREATE INDEX lease_labels_by_value ON lease_labels (key, value, lease_id);

-- Append-only: one row for each version of a lease.
CREATE TABLE events (
    lease_id TEXT COLLATE "C" NOT NULL REFERENCES leases (id),
    version BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    happened_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (lease_id, version)
);
