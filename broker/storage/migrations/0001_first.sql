-- The first schema.  Times are microseconds since 1970 in UTC; lists, mappings and identifiers
-- are JSON text.  Column names are the names of the fields of broker/issuance/records.py.
-- Words of a status are compared, never enumerated: which there are is the protocol's matter.

PRAGMA application_id = 0x50454E53;

CREATE TABLE schema_version (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;

-- ------------------------------------------------------------------------------ who asks

CREATE TABLE accounts (
    account_id TEXT NOT NULL PRIMARY KEY,
    community TEXT NOT NULL,
    status TEXT NOT NULL,
    jwk_json TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    contacts TEXT NOT NULL,
    terms_agreed INTEGER NOT NULL,
    eab_key_id TEXT,
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX accounts_by_key ON accounts (thumbprint, community);
CREATE INDEX accounts_by_time ON accounts (created_at, account_id);

CREATE TABLE eab_keys (
    key_id TEXT NOT NULL,
    community TEXT NOT NULL,
    label TEXT NOT NULL,
    mac_key BLOB NOT NULL,
    names TEXT NOT NULL,
    profiles TEXT NOT NULL,
    is_reusable INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    bound_account_id TEXT REFERENCES accounts (account_id),
    PRIMARY KEY (community, key_id)
) STRICT;

-- -------------------------------------------------------------------------- what is asked

CREATE TABLE orders (
    order_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    community TEXT NOT NULL,
    status TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    authorization_ids TEXT NOT NULL,
    profile TEXT NOT NULL,
    is_profile_asked INTEGER NOT NULL,
    not_before INTEGER,
    not_after INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decision TEXT NOT NULL,
    upstream TEXT NOT NULL,
    upstream_profile TEXT,
    cap_seconds INTEGER NOT NULL,
    ask_not_after INTEGER NOT NULL,
    csr_der BLOB,
    csr_sha256 TEXT,
    finalized_at INTEGER,
    certificate_id TEXT REFERENCES certificates (certificate_id),
    error TEXT
) STRICT;

CREATE INDEX orders_by_account ON orders (account_id, created_at, order_id);
CREATE INDEX orders_by_time ON orders (created_at, order_id);
-- Counts for the gauges come from this one alone, without reading a row.
CREATE INDEX orders_by_status ON orders (status, created_at, order_id);
CREATE INDEX orders_to_expire ON orders (expires_at)
    WHERE status IN ('pending', 'ready');

CREATE TABLE authorizations (
    authorization_id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders (order_id),
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    community TEXT NOT NULL,
    identifier TEXT NOT NULL,
    is_wildcard INTEGER NOT NULL,
    status TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    proof TEXT
) STRICT;

CREATE INDEX authorizations_by_order ON authorizations (order_id);
-- Who may revoke a certificate that another account ordered (RFC 8555 §7.6).
CREATE INDEX authorizations_proved ON authorizations (account_id, expires_at)
    WHERE status = 'valid' AND proof = 'challenge';

CREATE TABLE challenges (
    authorization_id TEXT NOT NULL REFERENCES authorizations (authorization_id),
    challenge_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL,
    token TEXT NOT NULL,
    status TEXT NOT NULL,
    validated_at INTEGER,
    error TEXT,
    PRIMARY KEY (authorization_id, challenge_id)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------- what is asked of the upstreams

CREATE TABLE work (
    work_id TEXT NOT NULL PRIMARY KEY,
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    work_key TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    upstream_profile TEXT,
    not_after INTEGER,
    status TEXT NOT NULL,
    order_url TEXT,
    taken_by TEXT REFERENCES orders (order_id),
    is_sent INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Two of our orders never share one upstream order, and an order never has two at once.  What is
-- dead gives its URL free: a CA may hand an order that it refused to finalize to the next asker.
CREATE UNIQUE INDEX work_by_url ON work (order_url)
    WHERE order_url IS NOT NULL AND status <> 'dead';
CREATE UNIQUE INDEX work_taken ON work (taken_by)
    WHERE taken_by IS NOT NULL AND status <> 'dead';
CREATE INDEX work_free ON work (work_key, community, status)
    WHERE taken_by IS NULL AND status IN ('intended', 'opened');
CREATE INDEX work_by_upstream ON work (upstream, community, order_url)
    WHERE order_url IS NOT NULL;
CREATE INDEX work_by_status ON work (status);

-- ------------------------------------------------------------------------- what came of it

CREATE TABLE certificates (
    certificate_id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE REFERENCES orders (order_id),
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    community TEXT NOT NULL,
    upstream TEXT NOT NULL,
    fingerprint TEXT NOT NULL UNIQUE,
    serial TEXT NOT NULL,
    cert_id TEXT,
    chain_pem BLOB NOT NULL,
    leaf_der BLOB NOT NULL,
    identifiers TEXT NOT NULL,
    spki_sha256 TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    is_released INTEGER NOT NULL,
    revoked_at INTEGER,
    revocation_reason INTEGER
) STRICT;

CREATE INDEX certificates_by_time ON certificates (received_at, certificate_id);
-- All columns that its query names, so that no row is read for a gauge.
CREATE INDEX certificates_live ON certificates (not_after, is_released, revoked_at)
    WHERE is_released = 1 AND revoked_at IS NULL;

-- --------------------------------------------------------------------- what is left to do

CREATE TABLE jobs (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    note TEXT,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX jobs_by_time ON jobs (due_at, kind, subject);

-- ------------------------------------------------------------------------- the upstreams

CREATE TABLE upstream_accounts (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    directory_url TEXT NOT NULL,
    account_url TEXT NOT NULL,
    key_id TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (upstream, community)
) STRICT;

CREATE INDEX upstream_accounts_by_key ON upstream_accounts (thumbprint);

CREATE TABLE suspensions (
    upstream TEXT NOT NULL,
    upstream_profile TEXT,
    since INTEGER NOT NULL,
    order_id TEXT NOT NULL REFERENCES orders (order_id),
    rule TEXT NOT NULL
) STRICT;

-- Two indexes, because to a unique index one NULL is not another.
CREATE UNIQUE INDEX suspensions_of_profile ON suspensions (upstream, upstream_profile)
    WHERE upstream_profile IS NOT NULL;
CREATE UNIQUE INDEX suspensions_of_default ON suspensions (upstream)
    WHERE upstream_profile IS NULL;

-- ----------------------------------------------------------------------- the built-in CA

CREATE TABLE ca_certificates (
    ca TEXT NOT NULL,
    order_ref TEXT NOT NULL,
    serial TEXT NOT NULL,
    certificate_der BLOB NOT NULL,
    issuer_key_id TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    revoked_at INTEGER,
    revocation_reason INTEGER,
    PRIMARY KEY (ca, order_ref)
) STRICT;

CREATE UNIQUE INDEX ca_certificates_by_serial ON ca_certificates (ca, serial);
CREATE INDEX ca_certificates_revoked ON ca_certificates (ca, issuer_key_id, not_after)
    WHERE revoked_at IS NOT NULL;

CREATE TABLE ca_crl_numbers (
    ca TEXT NOT NULL,
    issuer_key_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (ca, issuer_key_id)
) STRICT, WITHOUT ROWID;

-- -------------------------------------------------------------------------- what happened

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    community TEXT,
    account_id TEXT,
    order_id TEXT,
    upstream TEXT,
    data TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_order ON events (order_id, seq) WHERE order_id IS NOT NULL;

CREATE TRIGGER events_stay_as_written BEFORE UPDATE ON events
BEGIN
    SELECT raise(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_stay BEFORE DELETE ON events
BEGIN
    SELECT raise(ABORT, 'events are append-only');
END;
