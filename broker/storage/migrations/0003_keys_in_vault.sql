-- What keeping keys in Vault needs to remember.

-- ------------------------------------------------- the built-in CA: the list that was signed last

-- Served after a start at which none can be signed.  Of a retired issuer the last list of all lies
-- with its member.
CREATE TABLE ca_revocation_lists (
    ca TEXT NOT NULL,
    issuer_key_id TEXT NOT NULL,
    crl_der BLOB NOT NULL,
    PRIMARY KEY (ca, issuer_key_id)
) STRICT;

-- ------------------------------------------------------------- secrets of the store, sealed

-- The key that mac_key is sealed under; NULL: it lies in the clear, as earlier versions kept it.
ALTER TABLE eab_keys ADD COLUMN sealed_by TEXT;

-- ------------------------------------------------- changes of our own account keys at upstreams

-- A version that was made in Vault and not used is tried again, so that a key may have several
-- changes; of those that are not undone it still has one.
CREATE TABLE upstream_key_changes_anew (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    account_url TEXT NOT NULL,
    old_key_id TEXT NOT NULL,
    new_key_id TEXT NOT NULL,
    status TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

INSERT INTO upstream_key_changes_anew (upstream, community, account_url, old_key_id, new_key_id,
    status, begun_at, ended_at)
SELECT upstream, community, account_url, old_key_id, new_key_id, status, begun_at, ended_at
    FROM upstream_key_changes;

DROP TABLE upstream_key_changes;
ALTER TABLE upstream_key_changes_anew RENAME TO upstream_key_changes;

CREATE UNIQUE INDEX upstream_key_changes_open ON upstream_key_changes (upstream, community)
    WHERE status = 'begun';
CREATE UNIQUE INDEX upstream_key_changes_by_key ON upstream_key_changes (new_key_id)
    WHERE status IN ('begun', 'changed');

-- Why the key of an account was last not rotated, of its own accord or on command; it counts for
-- as long as the account has that key.
CREATE TABLE upstream_key_failures (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    key_id TEXT NOT NULL,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (upstream, community)
) STRICT, WITHOUT ROWID;

-- -------------------------------------------------- accounts of ours that were lost and replaced

-- Under which account of ours an upstream order was opened, and a certificate ordered.
ALTER TABLE work ADD COLUMN account_url TEXT;
ALTER TABLE certificates ADD COLUMN upstream_account TEXT;

-- What was ordered since the present account was registered was ordered by it.
UPDATE work SET account_url = (
    SELECT a.account_url FROM upstream_accounts a
    WHERE a.upstream = work.upstream AND a.community = work.community
        AND a.registered_at <= work.created_at)
WHERE order_url IS NOT NULL;
UPDATE certificates SET upstream_account = (
    SELECT a.account_url FROM upstream_accounts a
    WHERE a.upstream = certificates.upstream AND a.community = certificates.community
        AND a.registered_at <= certificates.received_at);

-- Live certificates of an account, when it is lost.
CREATE INDEX certificates_by_account ON certificates (upstream_account, not_after)
    WHERE upstream_account IS NOT NULL;

-- Kept for good: an account in a CAA record, in a CA's mail or on a certificate may be one of these.
CREATE TABLE former_upstream_accounts (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    directory_url TEXT NOT NULL,
    account_url TEXT NOT NULL,
    key_id TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    cause TEXT NOT NULL
) STRICT;

CREATE INDEX former_upstream_accounts_by_place
    ON former_upstream_accounts (upstream, community, until);

-- A recovery names its new key before that is made: killed anywhere, the next attempt finds the
-- account that was made for it.
CREATE TABLE account_recoveries (
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    old_account_url TEXT NOT NULL,
    new_key_id TEXT NOT NULL,
    cause TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE UNIQUE INDEX account_recoveries_open ON account_recoveries (upstream, community)
    WHERE ended_at IS NULL;

-- ------------------------------------------------- certificates that came with an adopted account

-- What another client ordered with the account before it became ours, so that a renewal of it is
-- told to the CA as one (RFC 9773 §5).
CREATE TABLE adopted_certificates (
    cert_id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    community TEXT NOT NULL,
    account_url TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    PRIMARY KEY (community, cert_id, upstream)
) STRICT, WITHOUT ROWID;
