"""The built-in CA over the store, the key files and the state directory that it runs on."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Refused
from broker.issuance.records import CaRole
from broker.keys.keyfile import KeyFileSigner
from broker.protocol.certificates import parse_chain, verify_chain_anchored
from broker.protocol.resources import OrderStatus
from broker.storage.sqlite import SqliteStore
from broker.upstreams.authority import (
    AuthorityPlan,
    PermittedNames,
    create_issuing,
    create_root,
)
from broker.upstreams.authority_state import member_of, read_state
from broker.upstreams.builtin import BuiltinCa, BuiltinSettings
from tests.fakes.builtin_ca import BASE_URL, DAY, PROFILES, make_csr, request
from tests.fakes.clock import START, FakeClock

PASSPHRASE = b"a passphrase that is long enough for anyone"
ROOT = AuthorityPlan(key_id="root", subject="CN=Root,O=Corp", lifetime=3650 * DAY)
ISSUING = AuthorityPlan(
    key_id="issuing-1",
    subject="CN=Issuing 1,O=Corp",
    lifetime=365 * DAY,
    permitted=PermittedNames(("corp.example",)),
)


async def initialised(path: Path, kind: str) -> None:
    """Make root and issuing CA, as the command does."""
    keys = path / "keys"
    keys.mkdir(mode=0o700)
    signer, clock = KeyFileSigner(keys, PASSPHRASE), FakeClock()
    root = await create_root(signer, clock, replace(ROOT, kind=kind))
    issuing = await create_issuing(signer, clock, replace(ISSUING, kind=kind), root)
    members = [
        member_of("local", CaRole.ROOT, root, START),
        member_of("local", CaRole.CURRENT, issuing, START),
    ]
    store = await SqliteStore.open(path / "penstock.db")
    await store.replace_ca_members("local", members, None)
    await store.close()


async def started(path: Path, stack: AsyncExitStack) -> BuiltinCa:
    """Start the CA from what lies on disk, as a new process does."""
    store = await SqliteStore.open(path / "penstock.db")
    stack.push_async_callback(store.close)
    state = read_state(await store.ca_members("local"))
    assert state is not None
    assert state.issuers is not None
    settings = BuiltinSettings(
        name="local",
        base_url=BASE_URL,
        profiles=PROFILES,
        default_profile="server",
        issuers=state.issuers,
    )
    signer = KeyFileSigner(path / "keys", PASSPHRASE)
    return BuiltinCa(settings, signer=signer, store=store, clock=FakeClock())


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
async def test_order_is_carried_through_restarts(tmp_path: Path, kind: str) -> None:
    """A new process at each step: one certificate, which verifies, and a list that names it."""
    await initialised(tmp_path, kind)
    key = ec.generate_private_key(ec.SECP256R1())
    async with AsyncExitStack() as stack:
        order = await (await started(tmp_path, stack)).open_order(request())
    async with AsyncExitStack() as stack:
        ca = await started(tmp_path, stack)
        assert await ca.read_order(order.url) == order
        results = await asyncio.gather(
            *(ca.finalize(order, make_csr(key)) for _ in range(8)), return_exceptions=True
        )
        assert not [result for result in results if isinstance(result, Exception)]
    async with AsyncExitStack() as stack:
        ca = await started(tmp_path, stack)
        order = await ca.read_order(order.url)
        assert order.status is OrderStatus.VALID
        pem = await ca.download(order)
        chain = verify_chain_anchored(parse_chain(pem), ca.anchors(), START)
        with pytest.raises(Refused, match="another key"):
            await ca.finalize(order, make_csr(ec.generate_private_key(ec.SECP256R1())))
        first = await ca.current_crl("issuing-1")
        await ca.revoke(chain.leaf.der, 1)
    async with AsyncExitStack() as stack:
        ca = await started(tmp_path, stack)
        await ca.revoke(chain.leaf.der, 1)
        second = await ca.current_crl("issuing-1")
        issuer = ca.find_issuer("issuing-1")
    assert issuer is not None
    assert first is not None
    assert second is not None
    assert second.number > first.number
    crl = x509.load_der_x509_crl(second.der)
    leaf = x509.load_der_x509_certificate(chain.leaf.der)
    assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None
    assert leaf.public_bytes(Encoding.PEM) + issuer.pem == pem
