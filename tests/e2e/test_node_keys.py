"""Keys of nodes as policy says, by a real agent at a real broker: new, kept, or on a token; and
RSA keys in the file that Java reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers import process
from tests.peers.installation import installed

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for the first certificates."""

MODULE: Final = "/usr/lib/softhsm/libsofthsm2.so"

PIN: Final = "59137"

NODE: Final = "keys.example.test"

KEYS: Final = {"fresh": "new", "kept": "kept", "asked-once": "csr", "token": "new"}
"""What policy says of the key at each renewal, by profile and certificate."""

STAGES: Final = (
    "SELECT d.stage, count(*) FROM deliveries d JOIN nodes n USING (node_id) WHERE n.name = ? "
    "GROUP BY d.stage"
)
"""How many deliveries to a node are at which stage."""


class Token:
    """A token of SoftHSM, in a folder of its own."""

    def __init__(self, home: Path) -> None:
        (home / "tokens").mkdir(parents=True)
        self._home = home
        (home / "pin").write_text(f"{PIN}\n", "ascii")
        settings = home / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {home / 'tokens'}\n", "ascii")
        self.environment = {"SOFTHSM2_CONF": str(settings)}
        words = ["--init-token", "--free", "--label", "web", "--so-pin", "1234", "--pin", PIN]
        self._run("softhsm2", *words)

    @property
    def uri(self) -> str:
        """Return the URI of keys on it."""
        query = f"module-path={MODULE}&pin-source=file:{self._home / 'pin'}"
        return f"pkcs11:token=web;object=www?{query}"

    def private_keys(self) -> int:
        """Return how many private keys another program sees on it, none of which it may read."""
        words = ["--module", MODULE, "--token-label", "web", "--login", "--pin", "env:TOKEN_PIN"]
        said = self._run("pkcs11-tool", *words, "--list-objects", TOKEN_PIN=PIN)
        keys = said.count("Private Key Object")
        assert said.count("never extractable") == keys
        return keys

    def _run(self, program: str, *words: str, **more: str) -> str:
        environment = {**os.environ, **self.environment, **more}
        command = [str(installed(program)), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout


def profile(key: str) -> dict[str, Any]:
    """Return a profile whose certificates are renewed with such a key."""
    return {
        "description": f"The key at a renewal: {key}",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": "local"}],
        "on_nodes": {"key": key, "keep_previous_key": "30d"},
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustingPenstock]:
    """A broker with a profile for each kind of key."""
    trusted = {
        "nodes": ["**"],
        "names": ["**.example.test"],
        "profiles": list(KEYS),
        "because": "nodes of the tests",
    }
    home = tmp_path_factory.mktemp("broker")
    profiles = {name: profile(key) for name, key in KEYS.items()}
    with TrustingPenstock(home, profiles=profiles, policy={"trusted": [trusted]}) as made:
        yield made


def leaves(agent: NodeAgent) -> dict[str, x509.Certificate]:
    """Return the certificate in each place."""
    return {
        one.name: x509.load_pem_x509_certificates((one.directory / "fullchain.pem").read_bytes())[0]
        for one in agent.wanted
    }


def key_in(path: Path) -> Any:
    """Return the public half of a key in a file."""
    return load_pem_private_key(path.read_bytes(), None).public_key()


def beginnings(broker: TrustingPenstock) -> dict[str, list[str]]:
    """Return at which stage each certificate's deliveries began, oldest first."""
    found: dict[str, list[str]] = {}
    for event in broker.events("delivery-begun"):
        found.setdefault(event["certificate"], []).append(event["stage"])
    return found


def an_agent(broker: TrustingPenstock, home: Path, token: Token) -> NodeAgent:
    """Return an agent with a certificate for each kind of key."""
    wanted = [
        Wanted(
            name=name,
            names=[f"{name}.{NODE}"],
            directory=home / "tls" / name,
            expects=broker.ca_bundle,
            profile=name,
            key_more=f'store = "{token.uri}"' if name == "token" else "",
        )
        for name in KEYS
    ]
    return NodeAgent(
        home / "agent",
        NODE,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([NODE])[NODE],
        wanted=wanted,
        environment=token.environment,
    )


def test_keys_are_new_or_kept_or_never_asked_for_again_as_policy_says(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """In files and on a token, of whose keys no file holds one; a key is kept after a new one."""
    token = Token(tmp_path / "hsm")
    with an_agent(broker, tmp_path, token) as agent:
        # The agent is ready before the broker has heard of all: a delivery that is open then would
        # be gone on with, instead of a new one.
        process.wait_until(
            lambda: broker.rows(STAGES, NODE) == [("seen", len(KEYS))], PATIENCE_SECONDS, "all seen"
        )
        first = leaves(agent)
        rows = broker.json("renew", NODE)
        second = leaves(agent)
    assert {row["certificate"]: row["stage"] for row in rows} == dict.fromkeys(KEYS, "seen")
    assert all(first[name] != second[name] for name in KEYS)
    kept = [name for name in KEYS if first[name].public_key() == second[name].public_key()]
    assert kept == ["kept", "asked-once"]
    # With the CSR kept the node is not even asked.
    begun = beginnings(broker)
    asked = {name: begun[name][1] == "asked" for name in KEYS}
    assert asked == {"fresh": True, "kept": True, "asked-once": False, "token": True}
    folders = {one.name: one.directory for one in agent.wanted}
    for name in ("fresh", "kept", "asked-once"):
        assert key_in(folders[name] / "privkey.pem") == second[name].public_key()
    (previous,) = folders["fresh"].glob(".previous-*")
    assert key_in(previous / "privkey.pem") == first["fresh"].public_key()
    assert (folders["token"] / "privkey.uri").read_text().startswith("pkcs11:token=web;")
    assert token.private_keys() == 2
    for path in (*folders["token"].rglob("*"), *(agent.state / "keys" / "token").iterdir()):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), path


# ---------------------------------------------------------------------------------------- PKCS#12

KEEPER: Final = "keeper.example.test"
"""A node with a keystore."""

PASSWORD: Final = "open sesame"


def opened(path: Path) -> x509.Certificate:
    """Return the certificate in a PKCS#12, which has its issuer and its RSA key beside it."""
    key, leaf, others = pkcs12.load_key_and_certificates(path.read_bytes(), PASSWORD.encode())
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert leaf is not None
    assert leaf.public_key() == key.public_key()
    assert [one.subject for one in others][:1] == [leaf.issuer]
    return leaf


def test_an_rsa_key_in_a_pkcs12_goes_from_csr_to_seen_and_is_renewed(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """One file with key and chain, each time of the certificate that the broker knows as seen."""
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n", "ascii")
    packed = Wanted(
        name="store",
        names=[KEEPER],
        directory=tmp_path / "tls",
        expects=broker.ca_bundle,
        layout="pkcs12",
        files_more=f'password = "file:{password}"',
        key_kind="rsa-2048",
        profile="fresh",
    )
    agent = NodeAgent(
        tmp_path / "agent",
        KEEPER,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([KEEPER])[KEEPER],
        wanted=[packed],
    )
    with agent:
        process.wait_until(
            lambda: broker.rows(STAGES, KEEPER) == [("seen", 1)], PATIENCE_SECONDS, "it is seen"
        )
        first = opened(tmp_path / "tls" / "store.p12")
        (row,) = broker.json("renew", KEEPER)
        second = opened(tmp_path / "tls" / "store.p12")
    assert row["stage"] == "seen"
    assert first.public_key() != second.public_key()
    known = broker.json("cert", "trace", row["delivery"])["fingerprint"]
    assert known == second.fingerprint(hashes.SHA256()).hex()
