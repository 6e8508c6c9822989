"""A whole broker whose built-in CA signs in the transit engine of a real Vault."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.deployments.memory import scalar_forms, search_files, search_memory
from tests.deployments.penstock import BuiltInCa, Penstock
from tests.deployments.requester import Requester
from tests.deployments.vaulted import Transit, vault_section
from tests.e2e.test_rotation import (
    OwnTls,
    Site,
    crl_of,
    issued,
    issuer_of,
    revoke,
    twin_of,
)
from tests.fakes.acme_client import make_csr
from tests.peers import process
from tests.peers.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

KEY = "penstock.local.issuing"
FIRST, SECOND = (f"vault:transit-ca/{KEY}#{number}" for number in (1, 2))


class VaultSite(Site):
    """A broker whose issuing keys are in Vault, and whose root is in a file."""

    def __init__(self, directory: Path, vault: Vault, kind: type[Penstock] = OwnTls) -> None:
        self.folder = directory / "openssl"
        self.folder.mkdir()
        self.vault = vault
        accounts = Transit(vault, directory, "transit-accounts", ["penstock.default.outer"])
        self.ca = Transit(vault, directory, "transit-ca", [KEY])
        trusted = {
            "eab": ["farm"],
            "names": ["**.example.test"],
            "profiles": ["server"],
            "because": "this test is about the CA",
        }
        broker: Any = kind(
            directory,
            validation_http_port=9,
            policy={"trusted": [trusted]},
            built_in=BuiltInCa(options={"key_store": self.ca.store}),
            more={"vault": vault_section(accounts, mounts=[self.ca])},
        )
        self.broker = broker

    def signing(self) -> int:
        """Return the first version of the issuing key that signs."""
        return int(self.ca.key(KEY)["min_encryption_version"])


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A Vault that keeps what it has over a seal."""
    folder = tmp_path / "vault"
    folder.mkdir()
    with Vault(folder) as made:
        yield made


@pytest.fixture
def site(vault: Vault, tmp_path: Path) -> Iterator[VaultSite]:
    """A broker that runs."""
    made = VaultSite(tmp_path, vault)
    with made.broker:
        yield made


async def run(site: VaultSite, *words: str, status: int = 0) -> Any:
    """Run a command beside the event loop."""
    return await asyncio.to_thread(site.broker.run, *words, status=status)


async def test_order_rotation_and_end_of_a_key_in_vault(site: VaultSite) -> None:
    """OpenSSL verifies every chain with its list; the old version ends, and no key is on disk."""
    async with site.requester() as requester:
        old = await issued(requester, "old.example.test")
        assert site.roles() == {FIRST: "current"}
        assert site.verify(old, crl=crl_of(old[0]))[0]
        assert issuer_of(old[0]) == old[1]
        await run(site, "ca", "rotate", "prepare", "local")
        await run(site, "ca", "rotate", "activate", "local")
        new = await issued(requester, "new.example.test")
        assert site.roles() == {FIRST: "past", SECOND: "current"}
        assert new[1] != old[1]
        for chain in (old, new):
            assert site.verify(chain, crl=crl_of(chain[0]))[0]
        refused = await run(site, "ca", "rotate", "retire", "local", status=1)
        assert f"1 certificate of '{FIRST}' in force" in refused.stderr
        await revoke(requester, old[0])
        is_content, said = site.verify(old, crl=crl_of(old[0]))
        assert not is_content
        assert "certificate revoked" in said
        assert site.signing() in (0, 1)
        done = await run(site, "ca", "rotate", "retire", "local")
        trim = f"vault write transit-ca/keys/{KEY}/trim min_available_version=2"
        assert trim in done.stdout
        assert site.signing() == 2
        assert site.verify(old, crl=crl_of(old[0])) == (False, said)
        last = await issued(requester, "last.example.test")
        assert site.verify(last, crl=crl_of(last[0]))[0]
    files = {one.name for one in (site.broker.state / "keys").rglob("*") if one.is_file()}
    assert {one for one in files if "issuing" in one} == set()


async def test_order_waits_for_a_sealed_vault(site: VaultSite) -> None:
    """It stays in processing, is told of, and issues by itself once Vault is back: one certificate.

    Lists and chains that there are go on being served, over a restart of the broker as well.
    """
    async with site.requester() as requester:
        before = await issued(requester, "before.example.test")
        crl = crl_of(before[0])
        await asyncio.to_thread(site.vault.seal)
        ordered = await requester.order("waits.example.test")
        finalized = await requester.finalize(ordered.json(), make_csr(["waits.example.test"]))
        assert finalized.json()["status"] == "processing"
        assert crl_of(before[0]) == crl
        refused = await run(site, "ca", "rotate", "prepare", "local", status=1)
        assert "vault" in refused.stderr
        assert site.roles() == {FIRST: "current"}
    await asyncio.to_thread(site.broker.stop)
    await asyncio.to_thread(site.broker.start)
    assert crl_of(before[0]) == crl
    assert issuer_of(before[0]) == before[1]
    async with twin_of(site, requester) as again:
        url = ordered.headers["Location"]
        seen = await again.post(url, None)
        assert seen.json()["status"] == "processing"
        await asyncio.to_thread(site.vault.unseal)
        order = await settled(again, url)
        assert order["status"] == "valid"
        chain = x509.load_pem_x509_certificates((await again.post(order["certificate"], None)).body)
        assert site.verify(chain, crl=crl_of(chain[0]))[0]
    assert len(site.broker.ca_serials()) == 2


async def test_private_key_is_nowhere_but_in_vault(site: VaultSite, tmp_path: Path) -> None:
    """Neither in the broker's memory nor in its files; a key of a file is found by the same search.

    The search itself is proven by the key of the root, which the broker had in its hands.
    """
    async with site.requester() as requester:
        chain = await issued(requester, "one.example.test")
        crl_of(chain[0])
        await run(site, "ca", "rotate", "prepare", "local")
    key = exported_key(site)
    assert key.public_key() == chain[1].public_key()
    assert search_memory(site.broker.pid, forms_of(key)) == set()
    assert search_files(site.broker.state, forms_of(key)) == set()
    folder = site.broker.state / "keys"
    passphrase = (tmp_path / "passphrase").read_bytes()
    root = load_pem_private_key((folder / "ca-local-root-1.pem").read_bytes(), passphrase)
    assert isinstance(root, ec.EllipticCurvePrivateKey)
    assert "little-endian" in search_memory(site.broker.pid, forms_of(root))


def exported_key(site: VaultSite) -> ec.EllipticCurvePrivateKey:
    """Return the private key of version 1, by making it one that may leave: not to be undone."""
    site.ca.configure(KEY, exportable=True)
    found = site.vault.ask("GET", f"transit-ca/export/signing-key/{KEY}/1")
    key = load_pem_private_key(found["data"]["keys"]["1"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def forms_of(key: ec.EllipticCurvePrivateKey) -> dict[str, bytes]:
    """Return every form that the private part may have."""
    return scalar_forms(key.private_numbers().private_value)


async def settled(requester: Requester, url: str) -> dict[str, Any]:
    """Return the order once it has ended."""
    async with asyncio.timeout(90):
        while True:
            order: dict[str, Any] = (await requester.post(url, None)).json()
            if order["status"] != "processing":
                return order
            await asyncio.sleep(0.1)


async def test_first_start_with_vault_sealed_waits_for_a_certificate(
    vault: Vault, tmp_path: Path
) -> None:
    """The listener opens by itself once the CA's key can sign; everything else is there before."""
    made = VaultSite(tmp_path, vault, Penstock)
    broker = made.broker
    await asyncio.to_thread(broker.prepare)
    await asyncio.to_thread(vault.seal)
    starting = asyncio.create_task(asyncio.to_thread(broker.start))
    try:
        health = f"http://127.0.0.1:{broker.health_port}"
        await asyncio.to_thread(
            process.wait_until,
            lambda: process.is_answering(f"{health}/livez"),
            process.START_SECONDS,
            "the broker lives",
        )
        assert not await asyncio.to_thread(process.is_answering, f"{health}/readyz")
        assert await asyncio.to_thread(made.roles) == {FIRST: "current"}
        assert not starting.done()
        await asyncio.to_thread(vault.unseal)
        await starting
        assert await asyncio.to_thread(process.is_answering, f"{health}/readyz")
    finally:
        await asyncio.to_thread(broker.stop)
