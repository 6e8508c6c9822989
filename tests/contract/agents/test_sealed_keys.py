"""Keys that are sealed for their owner's recovery, by a whole agent and before their first use."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from agents import wire
from tests.contract.agents.test_whole_agent import Host
from tests.fakes.stand_in_broker import StandInBroker
from tests.peers import authority

pytestmark = pytest.mark.e2e

NAMES = ["www.example.test"]

DECRYPTS = ("key_encipherment",)

SIGNS = ("digital_signature", "key_encipherment")


class Recovery:
    """The organisation's recovery key, which neither the node nor the broker has."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.path = folder / "recovery.pem"
        now = authority.real_now()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "recovery")])
        self.certificate = (
            x509.CertificateBuilder(issuer_name=name, subject_name=name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )

    def put_in_place(self) -> None:
        """Write the certificate where the node's configuration names it."""
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def open(self, sealed: Path) -> bytes:
        """Return what was sealed."""
        return pkcs7.pkcs7_decrypt_der(sealed.read_bytes(), self.certificate, self.key, [])


class SealingHost(Host):
    """A host whose one key is to be sealed, and whose reload looks whether it is."""

    def __init__(self, tmp_path: Path, broker: StandInBroker, recovery: Recovery) -> None:
        self.sealed = tmp_path / "agent" / "state" / "sealed" / "www"
        self.found = tmp_path / "found-at-reload"
        script = tmp_path / "reload.sh"
        script.write_text(f"#!/bin/sh\nls {self.sealed} >> {self.found} 2>&1\n")
        script.chmod(0o755)
        super().__init__(tmp_path, broker, more=f'[certificate.reload]\ncommand = ["{script}"]\n')
        (wanted,) = self.agent.wanted
        self.agent.wanted = [
            dataclasses.replace(
                wanted, key_kind="rsa-2048", key_more=f'seal_to = "{recovery.path}"'
            )
        ]

    async def try_to_deliver(
        self, delivery: str, generation: int, usages: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        """Have a certificate with these key usages delivered; return its end and its key's hash."""
        wish = {"delivery": delivery, "certificate": "www", "names": NAMES}
        await self.broker.send("want-csr", {**wish, "key_kind": "rsa-2048", "is_new_key": True})
        (told,) = await self.broker.hear("csr", where=lambda m: m.body["delivery"] == delivery)
        csr = wire.decode_bytes(str(told.body["csr_der"]), "csr_der")
        chain = self.broker.issue(csr, NAMES, usages=usages)
        await self.send(delivery, generation, chain)
        return await self.end(delivery), chain[1]


@pytest.fixture
def recovery(tmp_path: Path) -> Recovery:
    """A recovery key whose certificate is not on the node yet."""
    return Recovery(tmp_path)


@pytest.fixture
async def host(tmp_path: Path, recovery: Recovery) -> AsyncIterator[SealingHost]:
    """A running agent that seals its key."""
    async with StandInBroker(tmp_path / "broker") as broker:
        made = SealingHost(tmp_path, broker, recovery)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


async def test_a_decryption_key_is_sealed_before_its_certificate_is_installed(
    host: SealingHost, recovery: Recovery
) -> None:
    """Where it cannot be sealed nothing is put in place; else the copy lies there at the reload."""
    told, _ = await host.try_to_deliver("d1", 1, DECRYPTS)
    assert told["stage"] == "failed"
    assert "recovery.pem" in told["note"]
    assert host.stages("d1") == ["checked", "failed"]
    assert list(host.directory.iterdir()) == []
    await asyncio.to_thread(recovery.put_in_place)
    told, spki = await host.try_to_deliver("d2", 2, DECRYPTS)
    assert told["stage"] == "seen"
    host.pair()
    assert host.found.read_text().split() == [f"{spki}.p7m"]
    assert (
        recovery.open(host.sealed / f"{spki}.p7m") == (host.directory / "privkey.pem").read_bytes()
    )


async def test_a_key_that_may_sign_is_neither_sealed_nor_put_to_use(
    host: SealingHost, recovery: Recovery
) -> None:
    """The certificate that came before serves on, and the server is not even reloaded."""
    recovery.put_in_place()
    told, first = await host.try_to_deliver("d1", 1, DECRYPTS)
    assert told["stage"] == "seen"
    before, found = host.pair(), host.found.read_text()
    told, _ = await host.try_to_deliver("d2", 2, SIGNS)
    assert told["stage"] == "failed"
    assert "never sealed" in told["note"]
    assert (host.pair(), host.found.read_text()) == (before, found)
    assert [one.name for one in host.sealed.iterdir()] == [f"{first}.p7m"]
