"""What ``penstock vault setup --print`` writes, run against a real Vault: who may do what there.

Each line of the tables is asked for as every identity and then as root.  What an identity is denied
root is not, and whoever may do something does it: a path that is wrong would show.
"""

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.app.vault_script import write_policies, write_script
from broker.app.vault_setup import Setup, plan_setup
from broker.config.load import parse_config
from broker.keys.encryption import wrap_private_key
from tests.peers import authority, process
from tests.peers.installation import installed
from tests.peers.token_reviews import TokenReviews
from tests.peers.vault import Vault, make_client_certificate

pytestmark = pytest.mark.peers

SCRIPT_SECONDS: Final = 60

CONFIG: Final = """
apiVersion: penstock.dev/v1
kind: Broker
external_url: https://acme.corp.example:8443
state: /var/lib/penstock
listen:
  acme: {{address: "127.0.0.1:8443", from: local}}
  plain: {{address: "127.0.0.1:8080"}}
keys: {{passphrase: "file:/etc/penstock/key.pass"}}
vault:
  addresses: ["{url}"]
  ca_bundle: {ca_bundle}
  serve:
    method: approle
    role_id: "file:/etc/penstock/vault-role-id"
    secret_id: "file:/run/penstock/vault-secret-id"
  rotate:
    method: approle
    role_id: "file:/etc/penstock/vault-rotate-role-id"
    secret_id: "file:/run/penstock/vault-rotate-secret-id"
  mounts:
    team/transit-clinic:
      serve: {{method: kubernetes, role: penstock-clinic-serve}}
      rotate: {{method: kubernetes, role: penstock-clinic-rotate}}
    transit-ca:
      serve:
        method: certificate
        certificate: /etc/penstock/vault-client.crt
        key: /etc/penstock/vault-client.key
      rotate: {{method: token, token: "file:/run/penstock/vault-ca-token"}}
    transit-root:
      serve: {{method: token, token: "file:/run/penstock/vault-root-token"}}
  sealing_key: transit-penstock/penstock.sealing
communities:
  default: {{}}
  branch: {{}}
  clinic: {{key_store: "vault:team/transit-clinic"}}
upstreams:
  local:
    kind: built-in
    base_url: http://pki.corp.example:8080
    key_store: vault:transit-ca
    root_key_store: vault:transit-root
  le:
    kind: acme
    directory: https://ca.example/directory
    communities: [default, branch, clinic]
    account_key: {{store: "vault:transit-penstock"}}
    external_account_binding: {{key_id: kid, mac_key: "vault:kv/penstock/le-eab#mac_key"}}
  unmade:
    kind: acme
    directory: https://other.example/directory
    account_key: {{store: "vault:transit-penstock"}}
"""

MOUNT: Final = "transit-penstock"
OURS: Final = "penstock.default.le"
UNMADE: Final = "penstock.default.unmade"
CLINIC: Final = "team/transit-clinic"
CLINICS: Final = "penstock.clinic.le"
CA: Final = "transit-ca"
CAS: Final = "penstock.local.issuing"
STRANGER: Final = "other.default.le"
"""A key of another broker in the same mount."""

SERVE: Final = frozenset({"penstock.serve"})
ROTATE: Final = frozenset({"penstock.rotate"})
CLINIC_SERVE: Final = frozenset({"penstock.team-transit-clinic.serve"})
CLINIC_ROTATE: Final = frozenset({"penstock.team-transit-clinic.rotate"})
CA_SERVE: Final = frozenset({"penstock.transit-ca.serve"})
CA_ROTATE: Final = frozenset({"penstock.transit-ca.rotate"})
ROOT_SERVE: Final = frozenset({"penstock.transit-root.serve"})
NOBODY: Final = frozenset[str]()
EVERYBODY: Final = SERVE | ROTATE | CLINIC_SERVE | CLINIC_ROTATE | CA_SERVE | CA_ROTATE | ROOT_SERVE

SIGN: Final = {"input": "aGVsbG8=", "marshaling_algorithm": "jws", "key_version": 1}
SOUND: Final = {"type": "ecdsa-p256", "exportable": False, "allow_plaintext_backup": False}


@dataclass(frozen=True)
class Deed:
    """Something that can be asked of Vault, and who may."""

    what: str
    who: frozenset[str]
    method: str
    path: str
    document: Mapping[str, Any] | None = None
    before: tuple[tuple[str, str, Mapping[str, Any] | None], ...] = ()
    """What root does first, so that nothing but a policy stands in the way."""
    statuses: frozenset[int] = frozenset({200, 204})
    """What it answers whoever may."""
    root_statuses: frozenset[int] = frozenset()
    """What it answers root, where that is something else."""


def _config(key: str, **settings: Any) -> tuple[str, str, Mapping[str, Any]]:
    return ("POST", f"{key}/config", settings)


KEY: Final = f"{MOUNT}/keys/{OURS}"
SCRAP: Final = f"{MOUNT}/keys/penstock.branch.le"
"""A key of the same identity that root may ruin."""

SIGNING: Final = [
    Deed("sign", SERVE, "POST", f"{MOUNT}/sign/{OURS}/sha2-256", SIGN),
    Deed("sign without naming the hash", NOBODY, "POST", f"{MOUNT}/sign/{OURS}", SIGN),
    Deed("sign for the clinic", CLINIC_SERVE, "POST", f"{CLINIC}/sign/{CLINICS}/sha2-256", SIGN),
    Deed("sign as the CA", CA_SERVE, "POST", f"{CA}/sign/{CAS}/sha2-256", SIGN),
    Deed("sign by a stranger's key", NOBODY, "POST", f"{MOUNT}/sign/{STRANGER}/sha2-256", SIGN),
    Deed("read a key", SERVE | ROTATE, "GET", KEY),
    Deed(
        "read a key of the clinic", CLINIC_SERVE | CLINIC_ROTATE, "GET", f"{CLINIC}/keys/{CLINICS}"
    ),
    Deed("read the CA's key", CA_SERVE | CA_ROTATE, "GET", f"{CA}/keys/{CAS}"),
    Deed("read a stranger's key", NOBODY, "GET", f"{MOUNT}/keys/{STRANGER}"),
    Deed("list keys", NOBODY, "LIST", f"{MOUNT}/keys"),
    Deed("make an HMAC", NOBODY, "POST", f"{MOUNT}/hmac/{OURS}", {"input": "aGVsbG8="}),
    Deed("seal", SERVE, "POST", f"{MOUNT}/encrypt/penstock.sealing", {"plaintext": "aGVsbG8="}),
    Deed("make a data key", NOBODY, "POST", f"{MOUNT}/datakey/plaintext/penstock.sealing", {}),
    Deed("rotate the sealing key", NOBODY, "POST", f"{MOUNT}/keys/penstock.sealing/rotate", {}),
    Deed(
        "export the sealing key",
        NOBODY,
        "GET",
        f"{MOUNT}/export/encryption-key/penstock.sealing",
        before=(_config(f"{MOUNT}/keys/penstock.sealing", exportable=True),),
    ),
]

MAKING: Final = [
    Deed("make a key", ROTATE, "POST", f"{MOUNT}/keys/{UNMADE}", SOUND),
    Deed("make a key of the clinic", CLINIC_ROTATE, "POST", f"{CLINIC}/keys/{CLINICS}", SOUND),
    Deed("make a key of the CA", CA_ROTATE, "POST", f"{CA}/keys/{CAS}", SOUND),
    Deed("make a stranger's key", NOBODY, "POST", f"{MOUNT}/keys/other.new", SOUND),
    *(
        Deed(
            f"make a key, {name} {value!r}",
            NOBODY,
            "POST",
            f"{MOUNT}/keys/{UNMADE}",
            {
                **SOUND,
                name: value,
            },
        )
        for name, value in (
            ("exportable", True),
            ("exportable", "true"),
            ("exportable", 1),
            ("allow_plaintext_backup", True),
            ("allow_plaintext_backup", "1"),
            ("auto_rotate_period", "24h"),
            ("Exportable", True),
        )
    ),
    Deed(
        "make a key for encryption",
        NOBODY,
        "POST",
        f"{MOUNT}/keys/{UNMADE}",
        {"type": "aes128-gcm96"},
    ),
    Deed(
        "make a derived key",
        NOBODY,
        "POST",
        f"{MOUNT}/keys/other.derived",
        {"type": "aes256-gcm96", "derived": True},
    ),
    Deed("rotate", ROTATE, "POST", f"{KEY}/rotate", {}),
    Deed("rotate for the clinic", CLINIC_ROTATE, "POST", f"{CLINIC}/keys/{CLINICS}/rotate", {}),
    Deed("rotate the CA's key", CA_ROTATE, "POST", f"{CA}/keys/{CAS}/rotate", {}),
    Deed(
        "rotate the root's key", NOBODY, "POST", "transit-root/keys/penstock.local.root/rotate", {}
    ),
    Deed("rotate a stranger's key", NOBODY, "POST", f"{MOUNT}/keys/{STRANGER}/rotate", {}),
    Deed(
        "retire versions",
        ROTATE,
        "POST",
        f"{KEY}/config",
        {"min_encryption_version": 1, "min_decryption_version": 1},
    ),
    Deed(
        "retire versions of the CA",
        CA_ROTATE,
        "POST",
        f"{CA}/keys/{CAS}/config",
        {
            "min_encryption_version": 1,
            "min_decryption_version": 1,
        },
    ),
    Deed(
        "retire versions of a stranger",
        NOBODY,
        "POST",
        f"{MOUNT}/keys/{STRANGER}/config",
        {
            "min_decryption_version": 1,
        },
    ),
    *(
        Deed(f"set {' and '.join(settings)}", NOBODY, "POST", f"{SCRAP}/config", settings)
        for settings in (
            {"auto_rotate_period": "24h"},
            {"deletion_allowed": True},
            {"deletion_allowed": "true", "min_decryption_version": 1},
            {"exportable": True},
            {"allow_plaintext_backup": True, "min_encryption_version": 1},
        )
    ),
]

RUINING: Final = [
    Deed(
        "export a key",
        NOBODY,
        "GET",
        f"{MOUNT}/export/signing-key/penstock.branch.le",
        before=(_config(SCRAP, exportable=True),),
    ),
    Deed(
        "export a key for another",
        NOBODY,
        "GET",
        f"{MOUNT}/byok-export/wrapper/penstock.branch.le",
        before=(
            _config(SCRAP, exportable=True),
            ("POST", f"{MOUNT}/keys/wrapper", {"type": "rsa-4096"}),
        ),
    ),
    Deed(
        "back a key up",
        NOBODY,
        "GET",
        f"{MOUNT}/backup/penstock.branch.le",
        before=(_config(SCRAP, exportable=True, allow_plaintext_backup=True),),
    ),
    Deed(
        "restore a key",
        NOBODY,
        "POST",
        f"{MOUNT}/restore/{OURS}",
        {"backup": "eA=="},
        statuses=frozenset({400, 500}),
    ),
    Deed(
        "restore under a new name",
        NOBODY,
        "POST",
        f"{MOUNT}/restore",
        {"backup": "eA=="},
        statuses=frozenset({400, 500}),
    ),
    Deed(
        "trim versions",
        NOBODY,
        "POST",
        f"{SCRAP}/trim",
        {"min_available_version": 2},
        before=(
            ("POST", f"{SCRAP}/rotate", {}),
            _config(SCRAP, min_encryption_version=2, min_decryption_version=2),
        ),
    ),
    Deed("delete a key", NOBODY, "DELETE", SCRAP, before=(_config(SCRAP, deletion_allowed=True),)),
    Deed("read the wrapping key", NOBODY, "GET", f"{MOUNT}/wrapping_key"),
    Deed(
        "import a key",
        NOBODY,
        "POST",
        f"{MOUNT}/keys/penstock.branch.le/import",
        {
            "ciphertext": "eA==",
            "type": "ecdsa-p256",
        },
        statuses=frozenset({400, 500}),
    ),
    Deed("configure the engine's cache", NOBODY, "GET", f"{MOUNT}/cache-config"),
    Deed("configure keys of the engine", NOBODY, "GET", f"{MOUNT}/config/keys"),
]

KV: Final = [
    Deed("read a secret", SERVE, "GET", "kv/data/penstock/le-eab"),
    Deed("read the one beside it", NOBODY, "GET", "kv/data/penstock/le-eab-2"),
    Deed("read the one below it", NOBODY, "GET", "kv/data/penstock/le-eab/more"),
    Deed("read the one above it", NOBODY, "GET", "kv/data/penstock"),
    Deed("list secrets", NOBODY, "LIST", "kv/metadata/penstock"),
    Deed("read what is known of a secret", NOBODY, "GET", "kv/metadata/penstock/le-eab"),
    Deed("write a secret", NOBODY, "POST", "kv/data/penstock/le-eab", {"data": {"mac_key": "x"}}),
    Deed("delete a secret", NOBODY, "DELETE", "kv/data/penstock/le-eab-2"),
    Deed("destroy a secret", NOBODY, "POST", "kv/destroy/penstock/le-eab-2", {"versions": [1]}),
]

ELSEWHERE: Final = [
    Deed("look itself up", EVERYBODY, "GET", "auth/token/lookup-self"),
    Deed(
        "renew itself",
        EVERYBODY,
        "POST",
        "auth/token/renew-self",
        {},
        root_statuses=frozenset({400}),
    ),
    Deed("make a token", NOBODY, "POST", "auth/token/create", {}),
    Deed("look another token up", NOBODY, "LIST", "auth/token/accessors"),
    Deed("read a role", NOBODY, "GET", "auth/approle/role/penstock.serve"),
    Deed("make a secret id", NOBODY, "POST", "auth/approle/role/penstock.rotate/secret-id", {}),
    Deed("list mounts", NOBODY, "GET", "sys/mounts"),
    Deed("mount an engine", NOBODY, "POST", "sys/mounts/other", {"type": "transit"}),
    Deed("list auth methods", NOBODY, "GET", "sys/auth"),
    Deed("list policies", NOBODY, "LIST", "sys/policies/acl"),
    Deed(
        "write its own policy",
        NOBODY,
        "PUT",
        "sys/policies/acl/other",
        {"policy": 'path "x" {capabilities = ["deny"]}'},
    ),
    Deed("list audit devices", NOBODY, "GET", "sys/audit"),
    Deed(
        "take a snapshot",
        NOBODY,
        "GET",
        "sys/storage/raft/configuration",
        statuses=frozenset({400, 404, 500, 200}),
    ),
    Deed("read the plugins", NOBODY, "GET", "sys/plugins/catalog"),
    Deed("read its cubbyhole", NOBODY, "GET", "cubbyhole/x", statuses=frozenset({404})),
    Deed(
        "wrap something",
        NOBODY,
        "POST",
        "sys/wrapping/wrap",
        {"a": "b"},
        statuses=frozenset({200, 400}),
    ),
]

DEEDS: Final = [*SIGNING, *MAKING, *RUINING, *KV, *ELSEWHERE]


@dataclass(frozen=True)
class Ready:
    """A Vault that was set up by the script."""

    vault: Vault
    setup: Setup
    script: str
    reviews: TokenReviews
    clients: authority.Signer
    environment: Mapping[str, str]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run *script* as the security team would."""
        return subprocess.run(
            ["/bin/sh"],
            input=script,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SCRIPT_SECONDS,
        )

    def status(self, method: str, path: str, document: Mapping[str, Any] | None, token: str) -> int:
        """Return what Vault answers."""
        return self.vault.status(method, path, document, token=token)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """A Vault that the printed script was run on, with its keys made by root."""
    tmp = tmp_path_factory.mktemp("policies")
    clients = authority.make_root("client certificates")
    (tmp / "clients.pem").write_bytes(clients.certificate_pem)
    with Vault(tmp / "vault", storage="inmem") as vault, TokenReviews(tmp / "k8s") as reviews:
        vault.enable_kubernetes(reviews)
        text = CONFIG.format(url=vault.url, ca_bundle=vault.ca_bundle)
        setup = plan_setup(parse_config(text, "penstock.yaml"))
        environment = process.clean_environment(
            tmp,
            {
                "VAULT_TOKEN": vault.root_token,
                "PENSTOCK_CLIENT_CA": str(tmp / "clients.pem"),
            },
        )
        environment["PATH"] = f"{installed('vault').parent}:{environment['PATH']}"
        script = write_script(setup, of="https://acme.corp.example:8443")
        made = Ready(vault, setup, script, reviews, clients, environment)
        done = made.run(script)
        assert done.returncode == 0, done.stdout + done.stderr
        for mount, name in (
            (MOUNT, OURS),
            (MOUNT, "penstock.branch.le"),
            (MOUNT, STRANGER),
            (CLINIC, CLINICS),
            (CA, CAS),
        ):
            vault.ask("POST", f"{mount}/keys/{name}", SOUND)
        for path in ("penstock/le-eab", "penstock/le-eab-2", "penstock/le-eab/more", "penstock"):
            vault.ask("POST", f"kv/data/{path}", {"data": {"mac_key": "c2VjcmV0"}})
        yield made


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.what)
def test_only_those_may_who_have_to(ready: Ready, deed: Deed) -> None:
    """Every identity but those named is denied; they are not, and neither is root."""
    for method, path, document in deed.before:
        ready.vault.ask(method, path, document)
    seen = {
        who: ready.status(deed.method, deed.path, deed.document, ready.vault.token(who))
        for who in sorted(EVERYBODY)
    }
    allowed = {who for who, status in seen.items() if status in deed.statuses}
    denied = {who for who, status in seen.items() if status == 403}
    assert allowed == deed.who, seen
    assert denied == EVERYBODY - deed.who, seen
    root = ready.status(deed.method, deed.path, deed.document, ready.vault.root_token)
    assert root in (deed.root_statuses or deed.statuses)


def test_every_identity_is_in_the_tables(ready: Ready) -> None:
    """No role is printed that no deed is tried as."""
    assert {role.name for role in ready.setup.roles} == EVERYBODY


def test_sealed_secrets_are_opened_again(ready: Ready) -> None:
    """What serve sealed it opens; nobody else does."""
    vault = ready.vault
    path = f"{MOUNT}/encrypt/penstock.sealing"
    sealed = vault.ask("POST", path, {"plaintext": "aGVsbG8="}, token=vault.token(*SERVE))
    seen = {
        who: ready.status(
            "POST",
            f"{MOUNT}/decrypt/penstock.sealing",
            {"ciphertext": sealed["data"]["ciphertext"]},
            vault.token(who),
        )
        for who in EVERYBODY
    }
    assert {who for who, status in seen.items() if status == 200} == SERVE
    assert {who for who, status in seen.items() if status == 403} == EVERYBODY - SERVE


def test_identity_ends_its_own_token(ready: Ready) -> None:
    """After that it is good for nothing."""
    token = ready.vault.token(*SERVE)
    assert ready.status("GET", KEY, None, token) == 200
    assert ready.status("POST", "auth/token/revoke-self", {}, token) == 204
    assert ready.status("GET", KEY, None, token) == 403


def test_script_may_be_run_again(ready: Ready) -> None:
    """What it made is left or written again, and no key gets another version."""
    before = ready.vault.ask("GET", KEY)["data"]["keys"]
    done = ready.run(ready.script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ready.vault.ask("GET", KEY)["data"]["keys"] == before


def test_script_stops_where_something_is_denied(ready: Ready) -> None:
    """Half a setup is not called a setup."""
    token = ready.vault.token(*SERVE)
    made = Ready(**{**vars(ready), "environment": {**ready.environment, "VAULT_TOKEN": token}})
    done = made.run(ready.script)
    assert done.returncode != 0
    assert "permission denied" in done.stderr


def test_keys_that_nobody_of_ours_makes_are_made_sound(ready: Ready) -> None:
    """The root has no identity that rotates, so its key is made by the script."""
    for path in ("transit-root/keys/penstock.local.root", f"{MOUNT}/keys/penstock.sealing"):
        found = ready.vault.ask("GET", path)["data"]
        assert found["deletion_allowed"] is False
        assert found["allow_plaintext_backup"] is False
        assert found["auto_rotate_period"] == 0
    assert ready.vault.ask("GET", "transit-root/keys/penstock.local.root")["data"]["type"] == (
        "ecdsa-p256"
    )


# ----------------------------------------------------------------------------------------- logins


def granted(answer: Any) -> tuple[list[str], bool]:
    """Return the policies that a login gave, and whether its token is renewable."""
    auth = answer["auth"]
    return auth["token_policies"], auth["renewable"]


def test_approle_gives_its_identity_alone(ready: Ready) -> None:
    """No default policy; the token of serve is renewed for as long as the broker lives."""
    vault = ready.vault
    for name in ("penstock.serve", "penstock.rotate"):
        role = f"auth/approle/role/{name}"
        role_id = vault.ask("GET", f"{role}/role-id")["data"]["role_id"]
        secret_id = vault.ask("POST", f"{role}/secret-id", {})["data"]["secret_id"]
        document = {"role_id": role_id, "secret_id": secret_id}
        answer = vault.ask("POST", "auth/approle/login", document, token="")
        assert granted(answer) == ([name], True)
        assert answer["auth"]["lease_duration"] == (3600 if name == "penstock.serve" else 600)
        found = vault.ask("GET", "auth/token/lookup-self", token=answer["auth"]["client_token"])[
            "data"
        ]
        assert found.get("period", 0) == (3600 if name == "penstock.serve" else 0)


def test_secret_ids_are_handed_out_wrapped_or_not_at_all(ready: Ready) -> None:
    """Whoever delivers them cannot read them, nor wrap them for long, nor for another role."""
    vault = ready.vault
    path = "auth/approle/role/penstock.serve/secret-id"
    token = vault.token("penstock.serve.deliver")
    assert ready.status("POST", path, {}, token) == 403
    assert vault.status("POST", path, {}, token=token, wrap="24h") == 403
    assert vault.status("POST", path, {}, token=token, wrap="5m") == 200
    other = "auth/approle/role/penstock.rotate/secret-id"
    assert vault.status("POST", other, {}, token=token, wrap="5m") == 403
    other_token = vault.token("penstock.rotate.deliver")
    assert vault.status("POST", other, {}, token=other_token, wrap="5m") == 200


def test_kubernetes_lets_the_service_account_in(ready: Ready) -> None:
    """By its name, namespace and audience; each role gives its own identity."""
    vault, reviews = ready.vault, ready.reviews
    for role, name in (
        ("penstock-clinic-serve", "penstock.team-transit-clinic.serve"),
        ("penstock-clinic-rotate", "penstock.team-transit-clinic.rotate"),
    ):
        document = {"role": role, "jwt": reviews.mint("penstock")}
        answer = vault.ask("POST", "auth/kubernetes/login", document, token="")
        assert granted(answer) == ([name], True)
        for jwt in (
            reviews.mint("another"),
            reviews.mint("penstock", namespace="another"),
            reviews.mint("penstock", audience="another"),
        ):
            refused = {"role": role, "jwt": jwt}
            assert ready.status("POST", "auth/kubernetes/login", refused, "") == 403


def test_client_certificate_has_to_bear_the_name(ready: Ready, tmp_path: Path) -> None:
    """Of the CA alone, and with the common name of the role alone."""
    name = "penstock.transit-ca.serve"
    fitting = make_client_certificate(tmp_path, name, ready.clients)
    answer = ready.vault.log_in_by_certificate(*fitting)
    assert granted(answer) == ([name], True)
    other_name = make_client_certificate(tmp_path, "another", ready.clients)
    other_ca = make_client_certificate(tmp_path / "other", name, authority.make_root("other"))
    for refused in (other_name, other_ca):
        with pytest.raises(process.PeerFailed, match=r"answered 40[03]"):
            ready.vault.log_in_by_certificate(*refused)


def test_importing_is_granted_only_on_request(ready: Ready) -> None:
    """With it rotate reads the wrapping key and brings keys in, which never become exportable."""
    vault = ready.vault
    text = CONFIG.format(url=vault.url, ca_bundle=vault.ca_bundle)
    setup = plan_setup(parse_config(text, "penstock.yaml"), with_import=True)
    policy = next(one for one in setup.policies if one.name == "penstock.rotate")
    alone = Setup(
        **{
            **{name: getattr(setup, name) for name in Setup.__slots__},
            "roles": tuple(role for role in setup.roles if role.policy == policy),
            "deliveries": (),
        }
    )
    vault.write_policy("importing", write_policies(alone))
    token = vault.token("importing")
    pem = vault.ask("GET", f"{MOUNT}/wrapping_key", token=token)["data"]["public_key"]
    wrapping = load_pem_public_key(pem.encode("ascii"))
    assert isinstance(wrapping, rsa.RSAPublicKey)
    wrapped = wrap_private_key(ec.generate_private_key(ec.SECP256R1()), wrapping)
    vault.ask("POST", SCRAP, SOUND)
    vault.ask("POST", f"{SCRAP}/config", {"deletion_allowed": True})
    vault.ask("DELETE", SCRAP)
    document: dict[str, Any] = {
        **SOUND,
        "ciphertext": base64.b64encode(wrapped).decode("ascii"),
        "hash_function": "SHA256",
        "allow_rotation": True,
    }
    assert ready.status("POST", f"{SCRAP}/import", {**document, "exportable": True}, token) == 403
    assert ready.status("POST", f"{SCRAP}/import", document, token) == 204
    assert vault.ask("GET", SCRAP)["data"]["exportable"] is False
    path = f"{MOUNT}/keys/{UNMADE}2/import"
    assert ready.status("POST", path, {"ciphertext": "eA=="}, token) == 403
    path = f"{MOUNT}/keys/{UNMADE}/import"
    fine = {"ciphertext": "eA==", "type": "ecdsa-p256", "hash_function": "SHA256"}
    assert ready.status("POST", path, {**fine, "allow_rotation": True}, token) in {400, 500}
    for name in ("exportable", "allow_plaintext_backup"):
        assert ready.status("POST", path, {**fine, name: True}, token) == 403
    assert ready.status("GET", f"{MOUNT}/wrapping_key", None, vault.token("penstock.rotate")) == 403


def test_policies_alone_are_those_of_the_script(ready: Ready) -> None:
    """Each rule stands in the script as it stands in HCL."""
    text = write_policies(ready.setup)
    for block in text.split("# policy ")[1:]:
        name, _, rules = block.partition(":")
        rules = rules.partition("\n")[2].strip()
        assert rules in ready.script
        kept = ready.vault.ask("GET", f"sys/policies/acl/{name}")["data"]["policy"]
        assert kept.strip() == rules


def test_no_rule_has_a_glob_over_names(ready: Ready) -> None:
    """No `*` at all, and `+` only for the name of a hash."""
    for policy in ready.setup.policies:
        for rule in policy.rules:
            assert "*" not in rule.path
            assert "+" not in rule.path or "/sign/" in rule.path
            assert rule.path.count("+") <= 1
            assert not {"delete", "list", "sudo", "patch"} & set(rule.capabilities), rule
    assert json.dumps("*") not in write_policies(ready.setup)
