-- Policy the security team owns.

-- The audit chain (docs/adr/0031).  An event has the digest of its record, which names that of the
-- record before it; NULL: it is from before there was a chain.
ALTER TABLE events ADD COLUMN digest BLOB;

-- Signed statements of how far the chain had come, and under which digest.
CREATE TABLE audit_checkpoints (
    number INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    jws TEXT NOT NULL,
    vault_request TEXT
) STRICT;

CREATE INDEX audit_checkpoints_by_seq ON audit_checkpoints (seq);

-- How far each sink has come.
CREATE TABLE audit_sinks (
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    checkpoint INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;

-- Which policies were in force when (docs/adr/0028), and which sets of files were refused.
CREATE TABLE policy_changes (
    number INTEGER PRIMARY KEY,
    outcome TEXT NOT NULL,
    set_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    version INTEGER,
    signers TEXT NOT NULL,
    faults TEXT NOT NULL
) STRICT;

CREATE INDEX policy_changes_by_version ON policy_changes (version)
    WHERE version IS NOT NULL AND outcome = 'activated';

CREATE INDEX policy_changes_by_set ON policy_changes (set_id);

-- The files of the sets that were in force, octet for octet; each content is kept once.
CREATE TABLE policy_set_files (
    set_id TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (set_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX policy_set_files_by_digest ON policy_set_files (digest);

CREATE TABLE policy_contents (
    digest TEXT PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

-- Buckets of tokens: what limits of CAs and quotas of policy have left.  One that is full again is
-- the same as none.
CREATE TABLE buckets (
    bucket TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    period_microseconds INTEGER NOT NULL,
    level REAL NOT NULL,
    at INTEGER NOT NULL,
    full_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX buckets_full ON buckets (full_at);

-- Tokens that come back should their order end without a certificate, or unsent.
CREATE TABLE taken_tokens (
    order_id TEXT NOT NULL,
    bucket TEXT NOT NULL,
    kind TEXT NOT NULL,
    gives_back TEXT NOT NULL,
    PRIMARY KEY (order_id, bucket)
) STRICT, WITHOUT ROWID;

-- Times before which CAs do not want to be asked.
CREATE TABLE upstream_holds (
    upstream TEXT NOT NULL,
    account TEXT NOT NULL,
    subject TEXT NOT NULL,
    until INTEGER NOT NULL,
    since INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (upstream, account, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX upstream_holds_by_end ON upstream_holds (upstream, until);

-- CAs that are left alone because they did not answer.
CREATE TABLE breakers (
    upstream TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    openings INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Orders of one account for one CSR.
CREATE INDEX orders_by_csr ON orders (account_id, csr_sha256, finalized_at)
    WHERE csr_sha256 IS NOT NULL;

-- Requests that people answer, and the approvals that come of them (docs/adr/0029).
CREATE TABLE approvals (
    approval_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    community TEXT NOT NULL,
    status TEXT NOT NULL,
    holder TEXT NOT NULL,
    asker TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    profile TEXT NOT NULL,
    subject_sha256 TEXT NOT NULL,
    terms TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    last_asked_at INTEGER NOT NULL,
    times_asked INTEGER NOT NULL,
    answer_by INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    round INTEGER NOT NULL,
    decided_at INTEGER,
    proofed_at INTEGER,
    holds_until INTEGER,
    reproof_at INTEGER,
    look_at INTEGER,
    reason TEXT,
    eab_key_id TEXT,
    earlier TEXT
) STRICT, WITHOUT ROWID;

-- An identical ask joins the request that waits.
CREATE UNIQUE INDEX approvals_waiting ON approvals (community, subject_sha256)
    WHERE status = 'waiting';

CREATE INDEX approvals_of_asker ON approvals (asker) WHERE status = 'waiting';

CREATE INDEX approvals_of_holder ON approvals (holder, community, profile, asked_at);

CREATE INDEX approvals_by_status ON approvals (status, asked_at, approval_id);

CREATE INDEX approvals_to_look_at ON approvals (look_at) WHERE look_at IS NOT NULL;

CREATE INDEX approvals_by_key ON approvals (community, eab_key_id)
    WHERE eab_key_id IS NOT NULL;

-- What people said; only added to.
CREATE TABLE approval_answers (
    approval_id TEXT NOT NULL REFERENCES approvals (approval_id),
    revision INTEGER NOT NULL,
    round INTEGER NOT NULL,
    person TEXT NOT NULL,
    word TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT,
    evidence TEXT NOT NULL,
    PRIMARY KEY (approval_id, revision)
) STRICT, WITHOUT ROWID;

-- Requests that policy refused, for policy diff to ask again (docs/adr/0027).
CREATE INDEX events_refused ON events (at, seq) WHERE kind = 'request-refused';

-- What the credential of a node proved of its pod, for rules to look at (docs/adr/0026).
ALTER TABLE nodes ADD COLUMN namespace TEXT;
ALTER TABLE nodes ADD COLUMN service_account TEXT;

-- Which certificates an account has of which names: an order for the same ones is a renewal.  The
-- same names in another order make a text of the same length.
CREATE INDEX certificates_held ON certificates (account_id, length(identifiers), not_after)
    WHERE is_released = 1 AND revoked_at IS NULL;

-- What was stopped, by whom and why (docs/adr/0033).  Upstreams are of no community.
CREATE TABLE freezes (
    kind TEXT NOT NULL,
    community TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    told TEXT,
    ask TEXT,
    until INTEGER,
    PRIMARY KEY (kind, community, subject)
) STRICT, WITHOUT ROWID;

-- Who answers for an account or a binding key, as for a node; empty: nobody was named.
ALTER TABLE accounts ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN contact TEXT NOT NULL DEFAULT '';
ALTER TABLE eab_keys ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE eab_keys ADD COLUMN contact TEXT NOT NULL DEFAULT '';
