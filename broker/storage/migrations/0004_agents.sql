-- Nodes with agents, what is sent to them, and the certificates that are kept fresh there.

CREATE TABLE nodes (
    node_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    community TEXT NOT NULL,
    status TEXT NOT NULL,
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    method TEXT NOT NULL,
    names TEXT NOT NULL,
    profiles TEXT NOT NULL,
    owner TEXT NOT NULL,
    contact TEXT NOT NULL,
    spki_sha256 TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    identity_not_after INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    seen_at INTEGER,
    agent_version TEXT,
    wire_version TEXT,
    acknowledged INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX nodes_by_name ON nodes (name) WHERE status <> 'revoked';
CREATE UNIQUE INDEX nodes_by_account ON nodes (account_id);

-- Every identity that a node was given, so that one that is revoked is known for what it was.
CREATE TABLE node_identities (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    certificate_der BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX node_identities_of ON node_identities (node_id, not_after);

CREATE TABLE join_tokens (
    token_id TEXT NOT NULL PRIMARY KEY,
    token_sha256 TEXT NOT NULL UNIQUE,
    node TEXT,
    node_pattern TEXT,
    community TEXT NOT NULL,
    names TEXT NOT NULL,
    profiles TEXT NOT NULL,
    owner TEXT NOT NULL,
    contact TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_by TEXT REFERENCES nodes (node_id),
    revoked_at INTEGER
) STRICT;

CREATE TABLE enrolment_requests (
    request_id TEXT NOT NULL PRIMARY KEY,
    spki_sha256 TEXT NOT NULL,
    csr_der BLOB NOT NULL,
    node TEXT NOT NULL,
    facts TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    status TEXT NOT NULL,
    community TEXT,
    names TEXT NOT NULL,
    profiles TEXT NOT NULL,
    owner TEXT NOT NULL,
    contact TEXT NOT NULL,
    decided_by TEXT,
    decided_at INTEGER,
    node_id TEXT REFERENCES nodes (node_id)
) STRICT;

CREATE UNIQUE INDEX enrolment_requests_open ON enrolment_requests (spki_sha256)
    WHERE status = 'waiting';
CREATE INDEX enrolment_requests_by_key ON enrolment_requests (spki_sha256, created_at);

-- The sequence number of a node only goes up, also when its outbox is empty.
CREATE TABLE node_sequences (
    node_id TEXT NOT NULL PRIMARY KEY REFERENCES nodes (node_id),
    last_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE node_messages (
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    seq INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (node_id, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX node_messages_newest ON node_messages (node_id, subject);

CREATE TABLE managed (
    managed_id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    name TEXT NOT NULL,
    community TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    profile TEXT,
    key_kind TEXT NOT NULL,
    is_wanted INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    certificate_id TEXT REFERENCES certificates (certificate_id),
    not_after INTEGER,
    csr_der BLOB,
    next_at INTEGER,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    fault TEXT,
    served_pem BLOB,
    due_since INTEGER,
    told_at INTEGER
) STRICT;

CREATE UNIQUE INDEX managed_by_name ON managed (node_id, name);
CREATE INDEX managed_by_certificate ON managed (certificate_id) WHERE certificate_id IS NOT NULL;
-- A sweep reads this alone.
CREATE INDEX managed_due ON managed (next_at, managed_id) WHERE next_at IS NOT NULL;
CREATE INDEX managed_overdue ON managed (due_since, managed_id) WHERE due_since IS NOT NULL;

CREATE TABLE deliveries (
    delivery_id TEXT NOT NULL PRIMARY KEY,
    managed_id TEXT NOT NULL REFERENCES managed (managed_id),
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    community TEXT NOT NULL,
    rollout_group TEXT,
    generation INTEGER NOT NULL,
    stage TEXT NOT NULL,
    reason TEXT NOT NULL,
    incident_id TEXT,
    replaces TEXT REFERENCES certificates (certificate_id),
    order_id TEXT REFERENCES orders (order_id),
    certificate_id TEXT REFERENCES certificates (certificate_id),
    note TEXT,
    begun_at INTEGER NOT NULL,
    issued_at INTEGER,
    pushed_at INTEGER,
    checked_at INTEGER,
    installed_at INTEGER,
    reloaded_at INTEGER,
    ended_at INTEGER,
    released_at INTEGER,
    told_at INTEGER
) STRICT;

CREATE UNIQUE INDEX deliveries_by_generation ON deliveries (managed_id, generation);
CREATE UNIQUE INDEX deliveries_by_order ON deliveries (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX deliveries_by_stage ON deliveries (stage, rollout_group, begun_at);
CREATE INDEX deliveries_by_incident ON deliveries (incident_id) WHERE incident_id IS NOT NULL;

-- One that is on its way; there is at most one of each certificate.
CREATE UNIQUE INDEX deliveries_open ON deliveries (managed_id) WHERE ended_at IS NULL;
-- Whether certificates of clients that renew by themselves were renewed: looked at by time.
CREATE TABLE renewal_looks (
    certificate_id TEXT NOT NULL PRIMARY KEY REFERENCES certificates (certificate_id),
    look_at INTEGER NOT NULL,
    should_by INTEGER,
    told_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX renewal_looks_due ON renewal_looks (look_at, certificate_id);
-- A younger one of the same account for the same names.
CREATE INDEX certificates_same ON certificates (account_id, identifiers, received_at);
CREATE INDEX renewal_looks_told ON renewal_looks (should_by) WHERE told_at IS NOT NULL;
INSERT INTO renewal_looks (certificate_id, look_at)
    SELECT certificate_id, not_before + (not_after - not_before) / 2 FROM certificates
    WHERE is_released = 1 AND revoked_at IS NULL;

-- What a CA lets our account order is counted by it after a start.
CREATE INDEX orders_by_upstream ON orders (upstream, community, created_at);

-- One row for each rollout group that ever had a failure, a proof or a halt.
CREATE TABLE rollout_waves (
    group_name TEXT NOT NULL PRIMARY KEY,
    begun_at INTEGER NOT NULL,
    served TEXT NOT NULL,
    served_at INTEGER,
    failures INTEGER NOT NULL,
    halted_at INTEGER,
    halted_why TEXT,
    noted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Mass replacements, and each certificate that one of them is about.
CREATE TABLE incidents (
    incident_id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    selection TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    deadline_at INTEGER,
    started_by TEXT NOT NULL,
    reason TEXT,
    revocation_reason INTEGER NOT NULL,
    at_once INTEGER NOT NULL,
    explanation_url TEXT,
    late_at INTEGER,
    ended_at INTEGER
) STRICT;

CREATE TABLE incident_items (
    incident_id TEXT NOT NULL REFERENCES incidents (incident_id),
    certificate_id TEXT NOT NULL REFERENCES certificates (certificate_id),
    kind TEXT NOT NULL,
    managed_id TEXT REFERENCES managed (managed_id),
    node TEXT,
    status TEXT NOT NULL,
    note TEXT,
    attempts INTEGER NOT NULL,
    retry_at INTEGER,
    place INTEGER NOT NULL,
    PRIMARY KEY (incident_id, certificate_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX incident_items_by_status ON incident_items (incident_id, status, place);

-- Clients that renew by themselves are told to do so at once.
CREATE TABLE pulled_renewals (
    certificate_id TEXT NOT NULL PRIMARY KEY REFERENCES certificates (certificate_id),
    incident_id TEXT NOT NULL REFERENCES incidents (incident_id),
    pulled_at INTEGER NOT NULL,
    pulled_url TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX pulled_renewals_by_incident ON pulled_renewals (incident_id);

-- Bundles of anchors and revocation lists, and which nodes want them.
CREATE TABLE bundles (
    community TEXT NOT NULL,
    bundle TEXT NOT NULL,
    version INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (community, bundle)
) STRICT, WITHOUT ROWID;

CREATE TABLE node_bundles (
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    bundle TEXT NOT NULL,
    community TEXT NOT NULL,
    sent_version INTEGER NOT NULL,
    installed_version INTEGER NOT NULL,
    PRIMARY KEY (node_id, bundle)
) STRICT, WITHOUT ROWID;

-- Who has still to be sent the newest version; nothing is read of those that have it.
CREATE INDEX node_bundles_behind ON node_bundles (community, bundle, sent_version, node_id);
