"""What no section can see alone of what is to be in Vault."""

import copy
from typing import Any

import pytest

from tests.unit.config.conftest import FaultsOf, Parse

ACME: dict[str, Any] = {
    "kind": "acme",
    "directory": "https://ca.example/directory",
    "account_key": {"store": "vault:transit-penstock"},
}
LOCAL: dict[str, Any] = {
    "kind": "built-in",
    "base_url": "http://pki.corp.example:8080",
    "key_store": "vault:transit-ca",
    "root_key_store": "vault:transit-root",
}


def token(name: str) -> dict[str, str]:
    """Return a login by a token of that name."""
    return {"method": "token", "token": f"file:/run/{name}"}


VAULT: dict[str, Any] = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": token("serve"),
    "rotate": token("rotate"),
    "mounts": {
        "transit-ca": {"serve": token("ca-serve"), "rotate": token("ca-rotate")},
        "transit-root": {"serve": token("root-serve")},
    },
}
GOOD: dict[str, Any] = {"vault": VAULT, "upstreams.ca": ACME, "upstreams.local": LOCAL}


def test_keys_in_vault_are_taken(parse: Parse) -> None:
    """Three mounts, each with identities of its own."""
    config = parse(copy.deepcopy(GOOD))
    assert config.vault is not None


def test_configuration_without_vault_is_taken(parse: Parse) -> None:
    """Everything is in files then."""
    assert parse().vault is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"upstreams.ca": ACME},
            "upstreams.ca.account_key.store: keys are to be in Vault, and no Vault is configured",
            id="account-key",
        ),
        pytest.param(
            {"communities": {"default": {"key_store": "vault:transit-clinic"}}},
            "communities.default.key_store: keys are to be in Vault",
            id="community",
        ),
        pytest.param(
            {"upstreams.local": {**LOCAL, "root_key_store": "file"}},
            "upstreams.local.key_store: keys are to be in Vault",
            id="ca-key",
        ),
        pytest.param(
            {"keys": {"passphrase": "vault:kv/penstock/keys#passphrase"}},
            "keys.passphrase: secret vault:kv/penstock/keys#passphrase lies in Vault",
            id="secret",
        ),
    ],
)
def test_what_is_in_vault_needs_its_section(
    faults_of: FaultsOf, changes: dict[str, object], words: str
) -> None:
    """Each place that names it is told."""
    (fault,) = faults_of(changes)
    assert words in fault


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"upstreams.ca.account_key.store": "vault:transit-ca"},
            "mount 'transit-ca' would keep issuing keys of a built-in CA beside account keys",
            id="account-and-issuing",
        ),
        pytest.param(
            {"communities": {"default": {"key_store": "vault:transit-root"}}},
            "mount 'transit-root' would keep the root key of a built-in CA beside account keys",
            id="account-and-root",
        ),
        pytest.param(
            {"upstreams.local.root_key_store": "vault:transit-ca"},
            "beside the root key of a built-in CA",
            id="root-and-issuing",
        ),
        pytest.param(
            {"vault.sealing_key": "transit-ca/penstock.sealing"},
            "beside the sealing key",
            id="sealing-key",
        ),
        pytest.param(
            {"vault.mounts": {"transit-root": {"serve": token("root-serve")}}},
            "upstreams.local.key_store: mount 'transit-ca' keeps issuing keys of a built-in CA, "
            "and nobody but the identity of account keys",
            id="no-identity-of-its-own",
        ),
        pytest.param(
            {"vault.mounts.transit-ca.serve": token("serve")},
            "vault.mounts.transit-ca.serve: logs in as the same as vault.serve",
            id="one-identity-for-two-mounts",
        ),
        pytest.param(
            {"vault.rotate": token("serve")},
            "vault.rotate: logs in as the same as vault.serve",
            id="serve-is-rotate",
        ),
        pytest.param(
            {"vault.serve": {"method": "token", "token": "vault:kv/penstock/login#token"}},
            "vault.serve.token: secret vault:kv/penstock/login#token lies in Vault, and is what "
            "Vault is entered with",
            id="login-in-vault",
        ),
    ],
)
def test_what_has_to_be_apart_is_kept_apart(
    faults_of: FaultsOf, changes: dict[str, object], words: str
) -> None:
    """Whoever may do the one must not come by the other."""
    assert any(words in fault for fault in faults_of({**copy.deepcopy(GOOD), **changes}))


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(
            {"method": "approle", "role_id": "file:/run/id", "secret_id": "file:/run/secret"},
            id="approle",
        ),
        pytest.param({"method": "kubernetes", "role": "penstock-serve"}, id="kubernetes"),
        pytest.param(
            {"method": "certificate", "certificate": "/run/c.pem", "key": "/run/c.key"},
            id="certificate",
        ),
    ],
)
def test_one_role_twice_is_a_fault_by_every_method(
    faults_of: FaultsOf, parse: Parse, login: dict[str, str]
) -> None:
    """And each is fine for itself."""
    parse({**copy.deepcopy(GOOD), "vault.serve": login})
    twice = {"vault.serve": login, "vault.rotate": {**login}}
    found = faults_of({**copy.deepcopy(GOOD), **twice})
    assert any("vault.rotate: logs in as the same as vault.serve" in fault for fault in found)


def test_mount_of_a_community_may_have_identities_of_its_own(parse: Parse) -> None:
    """And where every community has one, nothing is kept in the upstream's."""
    parse(
        {
            **copy.deepcopy(GOOD),
            "communities": {"default": {"key_store": "vault:transit-clinic"}},
            "vault.mounts.transit-clinic": {"serve": token("clinic")},
        }
    )


def test_mount_that_nothing_new_is_made_at_may_have_identities(parse: Parse) -> None:
    """A past issuer lies there for months, or the secrets that references read."""
    parse({**copy.deepcopy(GOOD), "vault.mounts.transit-2025": {"serve": token("past")}})
