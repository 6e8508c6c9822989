-- What the whole protocol needs to keep beyond the first order: pre-authorizations, changed keys,
-- renewal information, alternate chains.

-- ------------------------------------------------------- accounts: bindings and terms as agreed

-- The external account binding as the client sent it, to be shown as it was (RFC 8555 §7.3.4).
ALTER TABLE accounts ADD COLUMN binding TEXT;
-- Which terms of service the account agreed to; none where the community named no version.
ALTER TABLE accounts ADD COLUMN terms_version TEXT;

-- ------------------------------------------------- authorizations without an order, ahead of any

-- A column cannot lose its NOT NULL, so the table is made anew, and with it the one that refers to
-- it: foreign keys may be on, and nothing may refer to a table that is gone.
CREATE TABLE authorizations_anew (
    authorization_id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT REFERENCES orders (order_id),
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    community TEXT NOT NULL,
    identifier TEXT NOT NULL,
    is_wildcard INTEGER NOT NULL,
    status TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    proof TEXT,
    rests_on TEXT REFERENCES authorizations_anew (authorization_id)
) STRICT;

INSERT INTO authorizations_anew (authorization_id, order_id, account_id, community, identifier,
    is_wildcard, status, expires_at, proof)
SELECT authorization_id, order_id, account_id, community, identifier,
    is_wildcard, status, expires_at, proof FROM authorizations;

CREATE TABLE challenges_anew (
    authorization_id TEXT NOT NULL REFERENCES authorizations_anew (authorization_id),
    challenge_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL,
    token TEXT NOT NULL,
    status TEXT NOT NULL,
    validated_at INTEGER,
    error TEXT,
    PRIMARY KEY (authorization_id, challenge_id)
) STRICT, WITHOUT ROWID;

INSERT INTO challenges_anew (authorization_id, challenge_id, position, type, token, status,
    validated_at, error)
SELECT authorization_id, challenge_id, position, type, token, status,
    validated_at, error FROM challenges;

DROP TABLE challenges;
DROP TABLE authorizations;
ALTER TABLE authorizations_anew RENAME TO authorizations;
ALTER TABLE challenges_anew RENAME TO challenges;

CREATE INDEX authorizations_by_order ON authorizations (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX authorizations_proved ON authorizations (account_id, expires_at)
    WHERE status = 'valid' AND proof = 'challenge';
-- Pre-authorizations: few, and looked for at every newOrder of a community that offers them.
CREATE INDEX authorizations_ahead ON authorizations (account_id, identifier)
    WHERE order_id IS NULL;
CREATE INDEX authorizations_resting ON authorizations (rests_on) WHERE rests_on IS NOT NULL;

-- Whether a key that an account would change to is the key of a certificate.
CREATE INDEX certificates_by_key ON certificates (spki_sha256);

-- ------------------------------------------------------------------- restored from a backup

-- Open while reconciled_at is NULL: until then the broker changes nothing.
CREATE TABLE restorations (
    restoration_id TEXT NOT NULL PRIMARY KEY,
    backup_id TEXT NOT NULL,
    backup_at INTEGER NOT NULL,
    restored_at INTEGER NOT NULL,
    reconciled_at INTEGER,
    report TEXT NOT NULL
) STRICT;

-- Upstream orders that were finalized after the backup by a CSR that it does not hold.  Only a
-- finalize with that very key may take one.
CREATE TABLE recovered_work (
    work_id TEXT NOT NULL PRIMARY KEY REFERENCES work (work_id),
    spki_sha256 TEXT NOT NULL,
    fingerprint TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- ------------------------------------------- renewal: windows, successors, retirement, chains

-- The CertID of the certificate that an order is to replace, and the upstream whose account
-- ordered that one, where it is the account that would order this one as well.
ALTER TABLE orders ADD COLUMN replaces TEXT;
ALTER TABLE orders ADD COLUMN replaces_upstream TEXT;
-- A certificate has one successor at a time (RFC 9773 §5); an order that failed makes room.
CREATE UNIQUE INDEX orders_replacing ON orders (replaces, account_id)
    WHERE replaces IS NOT NULL AND status <> 'invalid';

ALTER TABLE work ADD COLUMN replaces TEXT;

CREATE INDEX certificates_by_cert_id ON certificates (cert_id)
    WHERE cert_id IS NOT NULL;

-- Other chains of the same leaf, counted from 1; the one that is served by default lies with the
-- certificate and never changes.
CREATE TABLE alternate_chains (
    certificate_id TEXT NOT NULL REFERENCES certificates (certificate_id),
    position INTEGER NOT NULL,
    chain_pem BLOB NOT NULL,
    PRIMARY KEY (certificate_id, position)
) STRICT, WITHOUT ROWID;

-- What a CA last said about a certificate's renewal, and when it is asked again.
CREATE TABLE renewals (
    certificate_id TEXT NOT NULL PRIMARY KEY REFERENCES certificates (certificate_id),
    cert_id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    due_at INTEGER,
    failures INTEGER NOT NULL,
    window_start INTEGER,
    window_end INTEGER,
    explanation_url TEXT,
    asked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX renewals_due ON renewals (due_at, certificate_id)
    WHERE due_at IS NOT NULL;

-- What was issued before is asked about as well; the first look ends what there is not to ask.
INSERT INTO renewals (certificate_id, cert_id, upstream, community, not_after, due_at, failures)
SELECT certificate_id, cert_id, upstream, community, not_after, received_at, 0 FROM certificates
    WHERE cert_id IS NOT NULL AND is_released = 1 AND revoked_at IS NULL;

-- Certificates that are longer than their cap, and are replaced and revoked instead.
CREATE TABLE retirements (
    certificate_id TEXT NOT NULL PRIMARY KEY REFERENCES certificates (certificate_id),
    order_id TEXT NOT NULL REFERENCES orders (order_id),
    account_id TEXT NOT NULL REFERENCES accounts (account_id),
    community TEXT NOT NULL,
    upstream TEXT NOT NULL,
    profile TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    retire_at INTEGER NOT NULL,
    grace_seconds INTEGER NOT NULL,
    revokes_unreplaced INTEGER NOT NULL,
    status TEXT NOT NULL,
    replaced_by TEXT REFERENCES certificates (certificate_id),
    replaced_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX retirements_open ON retirements (account_id, community, received_at)
    WHERE status IN ('waiting', 'overdue');
CREATE INDEX retirements_by_status ON retirements (status, retire_at, certificate_id);

-- ------------------------------------------------- the built-in CA: which keys it has, and for what

-- One row a key, in the order in which they came.  The state of the CA and the event that tells of
-- its change are one transaction, which files could not be.
CREATE TABLE ca_members (
    position INTEGER PRIMARY KEY,
    ca TEXT NOT NULL,
    role TEXT NOT NULL,
    key_id TEXT,
    subject TEXT NOT NULL,
    certificate_der BLOB,
    since INTEGER NOT NULL,
    last_crl_der BLOB
) STRICT;

CREATE UNIQUE INDEX ca_members_by_key ON ca_members (ca, key_id);
CREATE UNIQUE INDEX ca_members_alone ON ca_members (ca, role)
    WHERE role IN ('root', 'requested', 'next', 'current');

-- ------------------------------------------------- changes of our own account keys at upstreams

-- Kept for good: an account's old keys are still in their files, and this tells what they were.
CREATE TABLE upstream_key_changes (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    account_url TEXT NOT NULL,
    old_key_id TEXT NOT NULL,
    new_key_id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE UNIQUE INDEX upstream_key_changes_open ON upstream_key_changes (upstream, community)
    WHERE status = 'begun';
