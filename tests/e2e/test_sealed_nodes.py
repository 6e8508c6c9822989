"""Decryption keys that a real agent seals for a certificate of a real broker, by the documented
configuration of both."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from ruamel.yaml import YAML

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import REPOSITORY, BuiltInCa
from tests.peers import process

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for what takes a few seconds, in seconds: RSA keys are made meanwhile."""

NODE: Final = "mail-01.nodes.example.test"

SECTION: Final = "## Sealing a decryption key\n"

SERVER: Final = {
    "description": "TLS servers of the tests",
    "usages": ["server-auth"],
    "upstreams": [{"upstream": "local"}],
}
"""The profile beside the documented one: its keys sign, as all do by default."""


def documented() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what docs/agents.md has for penstock.yaml and for the policy."""
    page = (REPOSITORY / "docs" / "agents.md").read_text("utf-8")
    section = page.partition(SECTION)[2].partition("\n## ")[0]
    config, policy = re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    yaml = YAML(typ="safe")
    return yaml.load(config), yaml.load(policy)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TrustingPenstock]:
    """A broker that has the documented profile beside one for servers."""
    config, policy = documented()
    profiles = {"server": SERVER, **policy["profiles"]}
    trusted = {
        "nodes": ["**"],
        "names": ["**.example.test"],
        "profiles": list(profiles),
        "because": "nodes of the tests",
    }
    ca = BuiltInCa(options={"profiles": config["upstreams"]["local"]["profiles"]})
    home = tmp_path / "broker"
    with TrustingPenstock(
        home, built_in=ca, profiles=profiles, policy={"trusted": [trusted]}
    ) as made:
        yield made


class Recovery:
    """The organisation's recovery key and certificate, in files."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.key, self.certificate = home / "recovery.key", home / "recovery.pem"
        self._opened = home / "privkey.pem"
        made = ["-keyout", str(self.key), "-out", str(self.certificate), "-days", "1"]
        run("req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=recovery", *made)

    def open(self, sealed: Path) -> rsa.RSAPrivateKey:
        """Return the key that was sealed, opened as docs/agents.md says."""
        given = ["-in", str(sealed), "-inkey", str(self.key), "-out", str(self._opened)]
        run("cms", "-decrypt", "-inform", "DER", *given)
        return private_key(self._opened)


def run(*words: str) -> None:
    """Run the program openssl."""
    subprocess.run(["openssl", *words], capture_output=True, check=True, timeout=60)


def private_key(path: Path) -> rsa.RSAPrivateKey:
    """Return the RSA key in a file."""
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def an_agent(broker: TrustingPenstock, home: Path, recovery: Recovery) -> NodeAgent:
    """Return an agent that seals two keys: of the documented profile, and of the other."""
    made = [
        Wanted(
            name=name,
            names=[f"{name}.example.test"],
            directory=home / "tls" / name,
            expects=broker.ca_bundle,
            profile=profile,
            key_kind="rsa-3072",
            key_more=f'seal_to = "{recovery.certificate}"',
        )
        for name, profile in (("mail", "decryption"), ("www", "server"))
    ]
    return NodeAgent(
        home,
        NODE,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([NODE])[NODE],
        wanted=made,
    )


def stages(broker: TrustingPenstock) -> set[tuple[str, str]]:
    """Return how far each certificate has come."""
    statement = "SELECT m.name, d.stage FROM deliveries d JOIN managed m USING (managed_id)"
    return set(broker.rows(statement))


def check_sealed(agent: NodeAgent, recovery: Recovery) -> str:
    """See that the sealed copy is of the key in place, which only decrypts; return its name."""
    folder = agent.wanted[0].directory
    leaf = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())[0]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_encipherment, usage.digital_signature) == (True, False)
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = f"{hashlib.sha256(spki).hexdigest()}.p7m"
    opened = recovery.open(agent.state / "sealed" / "mail" / name)
    assert opened.private_numbers() == private_key(folder / "privkey.pem").private_numbers()
    assert opened.public_key() == leaf.public_key()
    assert opened.key_size == 3072
    return name


def test_a_decryption_key_is_sealed_and_can_be_opened_as_documented(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """From CSR to seen, and once more by a renewal; a key that may sign is refused beside it."""
    recovery = Recovery(tmp_path / "recovery")
    with an_agent(broker, tmp_path / "agent", recovery) as agent:
        process.wait_until(
            lambda: {("mail", "seen"), ("www", "failed")} <= stages(broker),
            PATIENCE_SECONDS,
            "one is seen and one refused",
        )
        first = check_sealed(agent, recovery)
        (row,) = broker.json("renew", "mail")
        assert row["stage"] == "seen"
        second = check_sealed(agent, recovery)
    sealed = agent.state / "sealed"
    assert {one.name for one in (sealed / "mail").iterdir()} == {first, second}
    assert first != second
    (told,) = {
        note
        for name, note in broker.rows(
            "SELECT m.name, d.note FROM deliveries d JOIN managed m USING (managed_id)"
            " WHERE d.stage = 'failed'"
        )
        if name == "www"
    }
    assert "a key that may sign is never sealed" in told
    assert not (agent.wanted[1].directory / "fullchain.pem").exists()
    assert not (sealed / "www").exists()
