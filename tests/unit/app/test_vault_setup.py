"""What a configuration needs in Vault: mounts, keys, policies and roles, each path in full."""

import pytest

from broker.app.vault_setup import NO, Policy, Setup, plan_setup
from broker.config.load import parse_config
from broker.issuance.errors import Broken

HEAD = """
apiVersion: penstock.dev/v1
kind: Broker
external_url: https://acme.corp.example:8443
listen:
  acme: {certificate: /etc/penstock/tls.crt, key: /etc/penstock/tls.key}
  plain: {}
"""

VAULT = """
vault:
  addresses: ["https://vault.corp.example:8200"]
  serve: {method: approle, role_id: "file:/e/role", secret_id: "file:/e/secret"}
  rotate: {method: kubernetes, role: rotating}
"""

UPSTREAMS = """
keys: {passphrase: "file:/etc/penstock/passphrase"}
upstreams:
  ca:
    kind: acme
    directory: https://ca.example/directory
    account_key: {store: "vault:transit"}
"""


def planned(*parts: str, with_import: bool = False, also: tuple[str, ...] = ()) -> Setup:
    """Return what the configuration made of *parts* needs."""
    config = parse_config("".join([HEAD, *parts]), "penstock.yaml")
    return plan_setup(config, with_import=with_import, also=also)


def policy(setup: Setup, name: str) -> Policy:
    """Return the policy of that name."""
    return next(one for one in setup.policies if one.name == name)


def paths(setup: Setup, name: str) -> set[str]:
    """Return the paths of a policy, without those that every identity has for its own token."""
    every = (rule.path for rule in policy(setup, name).rules)
    return {path for path in every if not path.startswith("auth/token/")}


def test_serve_signs_and_rotate_makes() -> None:
    """Both know the public key, and neither has what the other is for."""
    setup = planned(VAULT, UPSTREAMS)
    key = "transit/keys/penstock.default.ca"
    assert paths(setup, "penstock.serve") == {key, "transit/sign/penstock.default.ca/+"}
    assert paths(setup, "penstock.rotate") == {key, f"{key}/rotate", f"{key}/config"}
    assert setup.transit_mounts == ("transit",)
    assert setup.keys == ()


def test_own_token_is_all_that_every_identity_may_have_besides() -> None:
    """Vault's policy `default` is not given to them."""
    setup = planned(VAULT, UPSTREAMS)
    for role in setup.roles:
        own = {
            (rule.path, rule.capabilities)
            for rule in role.policy.rules
            if rule.path.startswith("auth/")
        }
        assert own == {
            ("auth/token/lookup-self", ("read",)),
            ("auth/token/renew-self", ("update",)),
            ("auth/token/revoke-self", ("update",)),
        }


def test_rotate_can_set_nothing_but_versions_and_types() -> None:
    """What makes a key exportable can be sent only to be false."""
    rules = {rule.path: rule for rule in policy(planned(VAULT, UPSTREAMS), "penstock.rotate").rules}
    key = "transit/keys/penstock.default.ca"
    assert set(rules[f"{key}/config"].parameters) == {
        "min_encryption_version",
        "min_decryption_version",
    }
    made = rules[key].parameters
    assert made["exportable"] == made["allow_plaintext_backup"] == made["derived"] == NO
    assert set(made["type"]) >= {"ecdsa-p256", "rsa-2048"}
    assert set(made) == {"type", "exportable", "allow_plaintext_backup", "derived"}


def test_import_is_granted_on_request_alone() -> None:
    """Without it nobody can bring a key in."""
    key = "transit/keys/penstock.default.ca"
    more = {"transit/wrapping_key", f"{key}/import"}
    without = paths(planned(VAULT, UPSTREAMS), "penstock.rotate")
    assert paths(planned(VAULT, UPSTREAMS, with_import=True), "penstock.rotate") == without | more
    serve = paths(planned(VAULT, UPSTREAMS, with_import=True), "penstock.serve")
    assert serve == paths(planned(VAULT, UPSTREAMS), "penstock.serve")


def test_key_that_the_broker_may_not_make_is_made_beforehand() -> None:
    """Of the configured kind, where no identity rotates."""
    setup = planned(
        VAULT.replace("  rotate: {method: kubernetes, role: rotating}\n", ""),
        UPSTREAMS.replace('"vault:transit"', '"vault:transit", kind: rsa-3072'),
    )
    assert [(key.mount, key.name, key.type) for key in setup.keys] == [
        ("transit", "penstock.default.ca", "rsa-3072")
    ]
    assert [role.name for role in setup.roles] == ["penstock.serve"]


def test_sealing_key_is_used_and_not_made() -> None:
    """Serve encrypts and decrypts with it, and nobody of ours rotates it."""
    setup = planned(VAULT, "  sealing_key: transit/penstock.sealing\n", UPSTREAMS)
    assert ("transit", "penstock.sealing", "aes256-gcm96") in [
        (key.mount, key.name, key.type) for key in setup.keys
    ]
    granted = {path for path in paths(setup, "penstock.serve") if path.endswith(".sealing")}
    assert granted == {
        f"transit/{what}/penstock.sealing" for what in ("keys", "encrypt", "decrypt")
    }
    assert not {path for path in paths(setup, "penstock.rotate") if "sealing" in path}


def test_secrets_are_read_by_their_full_paths() -> None:
    """Each once, with the fields that are wanted of it; a mount may have a '/'."""
    upstreams = UPSTREAMS.replace("file:/etc/penstock/passphrase", "vault:team/kv/penstock/a#pass")
    bound = "    external_account_binding: {key_id: k, mac_key: 'vault:team/kv/penstock/a#mac'}\n"
    setup = planned(VAULT, '  kv_mounts: ["team/kv"]\n', upstreams, bound)
    assert [(one.mount, one.path, one.fields) for one in setup.kv_paths] == [
        ("team/kv", "penstock/a", ("mac", "pass"))
    ]
    assert "team/kv/data/penstock/a" in paths(setup, "penstock.serve")
    assert not {path for path in paths(setup, "penstock.rotate") if "kv" in path}


def test_each_mount_with_identities_of_its_own_has_its_policies() -> None:
    """What lies there is nobody else's, and theirs alone."""
    mounts = "  mounts: {team/clinic: {serve: {method: kubernetes, role: clinic}}}\n"
    communities = 'communities: {default: {}, clinic: {key_store: "vault:team/clinic"}}\n'
    upstreams = f"{UPSTREAMS}    communities: [default, clinic]\n"
    setup = planned(VAULT, mounts, communities, upstreams)
    assert [role.name for role in setup.roles] == [
        "penstock.serve",
        "penstock.rotate",
        "penstock.team-clinic.serve",
    ]
    clinic = "penstock.clinic.ca"
    assert paths(setup, "penstock.team-clinic.serve") == {
        f"team/clinic/keys/{clinic}",
        f"team/clinic/sign/{clinic}/+",
    }
    for name in ("penstock.serve", "penstock.rotate"):
        assert not {path for path in paths(setup, name) if "clinic" in path}
    assert [(key.mount, key.name) for key in setup.keys] == [("team/clinic", clinic)]


def test_keys_of_a_ca_are_known_to_its_own_identity() -> None:
    """Issuing key and root key, each at its mount."""
    mounts = """  mounts:
    transit-ca: {serve: {method: token, token: "file:/t"}}
    transit-root: {serve: {method: token, token: "file:/r"}}
"""
    local = """  local:
    kind: built-in
    base_url: http://pki.corp.example:8080
    key_store: vault:transit-ca
    root_key_store: vault:transit-root
"""
    setup = planned(VAULT, mounts, UPSTREAMS, local)
    assert "transit-ca/sign/penstock.local.issuing/+" in paths(setup, "penstock.transit-ca.serve")
    assert "transit-root/sign/penstock.local.root/+" in paths(setup, "penstock.transit-root.serve")
    assert not {path for path in paths(setup, "penstock.serve") if "local" in path}


def test_delivery_of_secret_ids_is_a_policy_of_its_own() -> None:
    """Only where they come wrapped, and only for the role."""
    setup = planned(VAULT, UPSTREAMS)
    (rule,) = policy(setup, "penstock.serve.deliver").rules
    assert rule.path == "auth/approle/role/penstock.serve/secret-id"
    assert rule.wrapping == ("1s", "10m")
    plain = VAULT.replace('"file:/e/secret"', '"file:/e/secret", is_wrapped: false')
    assert planned(plain, UPSTREAMS).deliveries == ()


def test_roles_that_would_be_written_twice_are_refused() -> None:
    """The second would take the place of the first, and its policy with it."""
    serve = VAULT.replace(
        '{method: approle, role_id: "file:/e/role", secret_id: "file:/e/secret"}',
        "{method: kubernetes, role: rotating, token_file: /other}",
    )
    with pytest.raises(Broken, match="log in as the role 'rotating'"):
        planned(serve, UPSTREAMS)
    other = serve.replace("role: rotating, token_file", "role: serving, token_file")
    assert len(planned(other, UPSTREAMS).roles) == 2


def test_policies_that_would_be_written_twice_are_refused() -> None:
    """Two mounts that differ by a '/' alone have one name for theirs."""
    mounts = """  mounts:
    a/b: {serve: {method: token, token: "file:/1"}}
    a-b: {serve: {method: token, token: "file:/2"}}
"""
    communities = (
        'communities: {default: {key_store: "vault:a/b"}, clinic: {key_store: "vault:a-b"}}\n'
    )
    upstreams = f"{UPSTREAMS}    communities: [default, clinic]\n"
    with pytest.raises(Broken, match=r"share the policy 'penstock\.a-b\.serve'"):
        planned(VAULT, mounts, communities, upstreams)
    renamed = (text.replace("a-b", "a-c") for text in (mounts, communities))
    assert len(planned(VAULT, *renamed, upstreams).roles) == 4


def test_key_that_was_left_behind_is_signed_with_until_it_is_moved() -> None:
    """The configuration names its new place alone; the old one is named by hand."""
    old = "transit-old/penstock.default.ca"
    setup = planned(VAULT, UPSTREAMS, also=(old,))
    assert "transit-old/sign/penstock.default.ca/+" in paths(setup, "penstock.serve")
    assert "transit-old" not in str(policy(planned(VAULT, UPSTREAMS), "penstock.serve"))
    assert old not in [f"{key.mount}/{key.name}" for key in setup.keys]


@pytest.mark.parametrize(
    "key", ["penstock.default.ca", "transit/other.default.ca", "transit/penstock.*", ""]
)
def test_additional_key_is_one_of_ours(key: str) -> None:
    """Another broker's is not given away by a slip of the pen."""
    with pytest.raises(Broken, match=r"no key of this broker|is not of the form"):
        planned(VAULT, UPSTREAMS, also=(key,))


def test_without_a_vault_nothing_is_needed() -> None:
    """It is told, instead of printing a script that does nothing."""
    with pytest.raises(Broken, match="no section 'vault'"):
        planned(UPSTREAMS.replace('"vault:transit"', "file"))


def test_key_of_checkpoints_signs_and_is_read_by_nobody() -> None:
    """Where it is to be in Vault; in a file nothing is asked of Vault for it."""
    audit = 'audit: {checkpoints: {key_store: "vault:transit"}}\n'
    setup = planned(UPSTREAMS, VAULT, audit)
    assert "transit/sign/penstock.audit/+" in paths(setup, "penstock.serve")
    assert "transit/export/penstock.audit" not in str(setup)
    assert "penstock.audit" not in str(planned(UPSTREAMS, VAULT))
