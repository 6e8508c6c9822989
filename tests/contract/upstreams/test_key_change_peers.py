"""Changing our account key at CAs: Pebble, and step-ca, which offers none in truth."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.account_keys import AccountGates, ConfiguredAccounts
from broker.clock import SystemClock
from broker.issuance.errors import Broken
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.issuance.upstream_keys import UpstreamKeys
from broker.storage.sqlite import SqliteStore
from broker.upstreams.account import check_account
from broker.upstreams.rollover import find_account
from tests.contract.upstreams.standing import (
    KEY_ID,
    Standing,
    dns_solver,
    leaf_of,
    request,
    standing,
)
from tests.fakes.file_places import FilePlaces
from tests.peers.bind import Bind
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.process import free_port
from tests.peers.stepca import StepCa

pytestmark = pytest.mark.peers

ZONE = "corp.example"


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server whose zone may be updated."""
    with Bind(tmp_path_factory.mktemp("bind"), zones=[ZONE]) as server:
        yield server


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[Pebble]:
    """Pebble, strict, refusing 15 % of good nonces."""
    peer = Pebble(
        tmp_path_factory.mktemp("pebble"),
        validation_http_port=free_port(),
        dns_server=bind.address,
        options=PebbleOptions(),
    )
    with peer:
        yield peer


@pytest.fixture(scope="module")
def stepca(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[StepCa]:
    """A step-ca."""
    peer = StepCa(
        tmp_path_factory.mktemp("step"), validation_http_port=free_port(), dns_server=bind.address
    )
    with peer:
        yield peer


@dataclass
class Keeping:
    """A broker's upstream half with a store: what changes keys in the product."""

    we: Standing
    store: SqliteStore
    keys: UpstreamKeys

    async def change(self) -> None:
        """Change the key, and use the account by it from now on."""
        self.we.record = await self.keys.change("ca", "default", kind="ec-p384", actor=SYSTEM)
        self.we.upstream._gate.changes += 1


@contextlib.asynccontextmanager
async def keeping(ca: Pebble | StepCa, bind: Bind, tmp_path: Path) -> AsyncIterator[Keeping]:
    """Stand registered before *ca*, with the account in a store."""
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        solvers = [dns_solver(bind)]
        async with standing(ca.directory_url, ca.ca_bundle, solvers=solvers) as we:
            record = await we.register()
            event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=SystemClock().now())
            await store.save_upstream_account(record, event)
            accounts = ConfiguredAccounts({"ca": we.client}, AccountGates(), we.signer)
            keys = UpstreamKeys(
                store,
                store,
                ring=we.signer,
                places=FilePlaces(),
                accounts=accounts,
                clock=SystemClock(),
            )
            yield Keeping(we, store, keys)
    finally:
        await store.close()


async def test_pebble_changes_the_key(pebble: Pebble, bind: Bind, tmp_path: Path) -> None:
    """What was issued before is revoked after, with the account that is the same all along."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with keeping(pebble, bind, tmp_path) as here:
        we = here.we
        assert we.record is not None
        old = we.record
        before = leaf_of(await we.obtain(request(f"www.{ZONE}"), key))
        await here.change()
        assert we.record.account_url == old.account_url
        assert we.record.thumbprint != old.thumbprint
        assert list(await check_account(we.record, client=we.client)) == []
        assert await find_account(we.client, old, KEY_ID) is None
        after = leaf_of(await we.obtain(request(f"www.{ZONE}"), key))
        for leaf in (before, after):
            await we.upstream.revoke(leaf.public_bytes(Encoding.DER), 4)
            assert pebble.status(f"{leaf.serial_number:x}").is_revoked


async def test_step_ca_offers_none(stepca: StepCa, bind: Bind, tmp_path: Path) -> None:
    """Its directory names a URL at which it answers "not implemented": nothing has changed."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with keeping(stepca, bind, tmp_path) as here:
        we = here.we
        assert we.record is not None
        before = we.record
        with pytest.raises(Broken, match=r"answered 501: .* not implemented"):
            await here.change()
        assert await here.store.find_upstream_account("ca", "default") == before
        assert list(we.signer.keys) == [KEY_ID]
        leaf_of(await we.obtain(request(f"www.{ZONE}"), key))
