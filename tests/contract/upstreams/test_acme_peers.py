"""The ACME adapter against CAs: Pebble, strict and moody, step-ca, and the simulator."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Refused, Unreachable
from broker.protocol.problems import ProblemType
from broker.protocol.resources import OrderStatus
from broker.upstreams.account import EabCredential, check_account
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.solvers import Http01Solver
from tests.contract.upstreams.standing import (
    Standing,
    csr_der,
    dns_solver,
    http_solver,
    leaf_of,
    names_of,
    request,
    standing,
)
from tests.fakes.hostile_ca import HostileCaProcess
from tests.peers.bind import Bind
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.process import free_port
from tests.peers.stepca import AcmeProvisioner, StepCa

pytestmark = pytest.mark.peers

ZONE = "corp.example"
DELEGATED = "acme.example"


@dataclass
class World:
    """A CA, the name server it asks, and the port it looks at by HTTP."""

    ca: Pebble | StepCa | HostileCaProcess
    bind: Bind
    http_port: int


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server whose update key reaches one dedicated zone alone."""
    tmp = tmp_path_factory.mktemp("bind")
    with Bind(tmp, zones=[ZONE, DELEGATED], updatable=[DELEGATED]) as server:
        for name in ("www", "a", "b", "apex"):
            server.add_a(f"{name}.{ZONE}")
            server.add_cname(f"_acme-challenge.{name}.{ZONE}", f"{name}.{DELEGATED}")
        yield server


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[World]:
    """Pebble, strict, refusing 15 % of good nonces."""
    port = free_port()
    options = PebbleOptions(blocked_domains=[f"blocked.{ZONE}"])
    peer = Pebble(
        tmp_path_factory.mktemp("pebble"),
        validation_http_port=port,
        dns_server=bind.address,
        options=options,
    )
    with peer:
        yield World(peer, bind, port)


@pytest.fixture(scope="module")
def stepca(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[World]:
    """A step-ca that grants a day at most."""
    port = free_port()
    peer = StepCa(
        tmp_path_factory.mktemp("step"),
        validation_http_port=port,
        dns_server=bind.address,
        provisioners=(AcmeProvisioner(longest=timedelta(hours=24)),),
    )
    with peer:
        yield World(peer, bind, port)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[World]:
    """The CA of our own, in its honest mood, which believes every challenge."""
    with HostileCaProcess(tmp_path_factory.mktemp("simulator")) as ca:
        yield World(ca, bind, free_port())


@pytest.fixture(params=["pebble", "stepca", "simulator"])
def world(request: pytest.FixtureRequest) -> World:
    """Each CA."""
    found: World = request.getfixturevalue(request.param)
    return found


@contextlib.asynccontextmanager
async def by_dns(world: World) -> AsyncIterator[Standing]:
    """Stand registered before the CA, with a dns-01 solver."""
    solvers = [dns_solver(world.bind)]
    async with standing(world.ca.directory_url, world.ca.ca_bundle, solvers=solvers) as found:
        await found.register()
        yield found


async def test_a_certificate_is_obtained_by_dns(world: World) -> None:
    """A name and its wildcard at once, by way of an alias; every trace is removed."""
    names = [f"*.apex.{ZONE}", f"apex.{ZONE}", f"www.{ZONE}"]
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(world) as we:
        leaf = leaf_of(await we.obtain(request(*names), key))
    assert names_of(leaf) == names
    assert leaf.public_key() == key.public_key()
    assert world.bind.txt(f"apex.{DELEGATED}") == []
    assert world.bind.txt(f"www.{DELEGATED}") == []


async def test_a_certificate_is_obtained_by_http(world: World) -> None:
    """The CA fetches the answer from a plain listener."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with (
        http_solver(world.http_port) as solver,
        standing(world.ca.directory_url, world.ca.ca_bundle, solvers=[solver]) as we,
    ):
        await we.register()
        leaf = leaf_of(await we.obtain(request(f"a.{ZONE}", f"b.{ZONE}"), key))
    assert names_of(leaf) == [f"a.{ZONE}", f"b.{ZONE}"]


async def test_orders_side_by_side_do_not_disturb_each_other(world: World) -> None:
    """Four at once, through one account, one connection pool and one set of nonces."""
    names = [f"{name}.{ZONE}" for name in ("www", "a", "b", "apex")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    async with by_dns(world) as we:
        pairs = zip(names, keys, strict=True)
        chains = await asyncio.gather(*(we.obtain(request(n), k) for n, k in pairs))
    assert [names_of(leaf_of(chain)) for chain in chains] == [[name] for name in names]
    assert [leaf_of(chain).public_key() for chain in chains] == [k.public_key() for k in keys]


async def test_a_certificate_is_revoked(world: World) -> None:
    """Twice, since the second is no error."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(world) as we:
        leaf = leaf_of(await we.obtain(request(f"www.{ZONE}"), key))
        der = leaf.public_bytes(Encoding.DER)
        await we.upstream.revoke(der, 4)
        await we.upstream.revoke(der, 4)
    if isinstance(world.ca, Pebble):
        status = world.ca.status(f"{leaf.serial_number:x}")
        assert (status.is_revoked, status.reason) == (True, 4)


async def test_registering_again_finds_the_account(world: World) -> None:
    """The same key has the same account, and the account passes its check."""
    async with standing(world.ca.directory_url, world.ca.ca_bundle) as we:
        first, second = await we.register(), await we.register()
        assert first.account_url == second.account_url
        assert list(await check_account(second, client=we.client)) == []


async def test_a_csr_for_other_names_is_refused(world: World) -> None:
    """And the order can still be finalized with the right one."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(world) as we:
        order = await we.upstream.open_order(request(f"www.{ZONE}"))
        order = await we.upstream.authorize(order)
        with pytest.raises(Refused):
            await we.upstream.finalize(order, csr_der(key, f"a.{ZONE}"))
        done = await we.upstream.finalize(order, csr_der(key, f"www.{ZONE}"))
        assert (await we.finished(done)).status is OrderStatus.VALID


async def test_an_order_that_is_not_there_is_a_refusal(world: World) -> None:
    """The CA knows no such order."""
    async with by_dns(world) as we:
        order = await we.upstream.open_order(request(f"www.{ZONE}"))
        with pytest.raises(Refused):
            await we.upstream.read_order(order.url[:-4] + "none")


async def test_an_end_that_is_asked_for_is_granted(world: World) -> None:
    """Each of them honours notAfter, and shows it in the order."""
    end = (SystemClock().now() + timedelta(hours=12)).replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(world) as we:
        order = await we.upstream.open_order(request(f"www.{ZONE}", not_after=end))
        assert order.not_after == end
        leaf = leaf_of(await we.obtain(request(f"www.{ZONE}", not_after=end), key))
    assert leaf.not_valid_after_utc == end


async def test_a_lost_order_is_sought(world: World) -> None:
    """Where the CA lists orders it is found; where it does not, the answer is None."""
    end = (SystemClock().now() + timedelta(hours=7)).replace(microsecond=0)
    profile = "shortlived" if isinstance(world.ca, Pebble) else None
    lost = request(f"a.{ZONE}", not_after=end, profile=profile)
    async with by_dns(world) as we:
        opened = await we.upstream.open_order(lost)
        found = await we.upstream.seek_order(lost, ())
        assert found is not None
        assert found.url == opened.url
        assert await we.upstream.seek_order(lost, {opened.url}) is None


# ----------------------------------------------------------------------------------------- Pebble


async def test_pebble_refuses_a_blocked_name(pebble: World) -> None:
    """The CA's policy, in its own type."""
    async with by_dns(pebble) as we:
        with pytest.raises(Refused) as caught:
            await we.upstream.open_order(request(f"blocked.{ZONE}"))
    assert caught.value.problem.type is ProblemType.REJECTED_IDENTIFIER


async def test_pebble_refuses_a_profile_that_it_does_not_have(pebble: World) -> None:
    """And grants one that it has."""
    async with by_dns(pebble) as we:
        with pytest.raises(Refused):
            await we.upstream.open_order(request(f"www.{ZONE}", profile="nonesuch"))
        order = await we.upstream.open_order(request(f"www.{ZONE}", profile="shortlived"))
        assert order.profile == "shortlived"


async def test_a_challenge_that_fails_is_a_refusal(pebble: World) -> None:
    """Nobody serves the answer: the CA's own reason comes back."""
    solver = Http01Solver(Http01Answers())
    async with standing(pebble.ca.directory_url, pebble.ca.ca_bundle, solvers=[solver]) as we:
        await we.register()
        order = await we.upstream.open_order(request(f"b.{ZONE}"))
        with pytest.raises(Refused) as caught:
            await we.upstream.authorize(order)
        assert caught.value.problem.type is ProblemType.CONNECTION
        assert (await we.upstream.read_order(order.url)).status is OrderStatus.INVALID


async def test_pebbles_finalize_is_watched_at_its_pace(pebble: World) -> None:
    """It hangs for good when it is asked within milliseconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(pebble) as we:
        order = await we.upstream.authorize(await we.upstream.open_order(request(f"www.{ZONE}")))
        order = await we.upstream.finalize(order, csr_der(key, f"www.{ZONE}"))
        if order.status is OrderStatus.PROCESSING:
            assert order.retry_at is not None
            wait = order.retry_at - SystemClock().now()
            assert wait > timedelta(milliseconds=400)
        assert (await we.finished(order)).status is OrderStatus.VALID


async def test_valid_authorizations_are_taken_as_they_are(tmp_path: Path, bind: Bind) -> None:
    """Pebble reuses every authorization: the second order needs no solver."""
    options = PebbleOptions(authz_reuse=100, always_valid=True)
    peer = Pebble(
        tmp_path, validation_http_port=free_port(), dns_server=bind.address, options=options
    )
    async with peer, standing(peer.directory_url, peer.ca_bundle) as we:
        await we.register()
        with pytest.raises(Broken, match=r"no solver is configured for 'www\.corp\.example'"):
            await we.upstream.authorize(await we.upstream.open_order(request(f"www.{ZONE}")))
        solver = dns_solver(bind)
        async with standing(peer.directory_url, peer.ca_bundle, solvers=[solver]) as first:
            first.signer.keys, first.record = we.signer.keys, we.record
            order = await first.upstream.open_order(request(f"www.{ZONE}"))
            assert (await first.upstream.authorize(order)).status is OrderStatus.READY
        order = await we.upstream.open_order(request(f"www.{ZONE}"))
        assert (await we.upstream.authorize(order)).status is OrderStatus.READY


async def test_an_external_account_is_bound(tmp_path: Path, bind: Bind) -> None:
    """Pebble checks the binding; without one the reason says what is missing."""
    mac_key = b"0123456789abcdef0123456789abcdef"
    encoded = base64.urlsafe_b64encode(mac_key).rstrip(b"=").decode()
    peer = Pebble(
        tmp_path,
        validation_http_port=free_port(),
        dns_server=bind.address,
        options=PebbleOptions(external_accounts={"kid-1": encoded}),
    )
    async with peer, standing(peer.directory_url, peer.ca_bundle) as we:
        with pytest.raises(Refused) as caught:
            await we.register()
        assert caught.value.problem.type is ProblemType.EXTERNAL_ACCOUNT_REQUIRED
        with pytest.raises(Refused):
            await we.register(eab=EabCredential(key_id="kid-1", mac_key=b"x" * 32))
        await we.register(eab=EabCredential(key_id="kid-1", mac_key=mac_key))


async def test_terms_have_to_be_agreed_to(pebble: World) -> None:
    """Pebble has terms: nothing is registered until a person agrees."""
    async with standing(pebble.ca.directory_url, pebble.ca.ca_bundle) as we:
        with pytest.raises(Refused) as caught:
            await we.register(is_terms_agreed=False)
        assert caught.value.problem.type is ProblemType.USER_ACTION_REQUIRED
        await we.register()


async def test_a_ca_that_forgot_us_fails_no_order(tmp_path: Path, bind: Bind) -> None:
    """A restarted Pebble knows no accounts: a person has to register again, and then it goes on."""
    peer = Pebble(tmp_path, validation_http_port=free_port(), dns_server=bind.address)
    async with standing(peer.directory_url, peer.ca_bundle) as we:
        async with peer:
            await we.register()
        with pytest.raises(Unreachable):
            await we.upstream.open_order(request(f"www.{ZONE}"))
        async with peer:
            with pytest.raises(Broken, match="refuses our account"):
                await we.upstream.open_order(request(f"www.{ZONE}"))
            await we.register()


# ---------------------------------------------------------------------------------------- step-ca


async def test_an_end_beyond_step_cas_limit_fails_at_finalize_without_being_a_refusal(
    stepca: World,
) -> None:
    """It answers 500 then, which says nothing about the order: the facts have to prevent it."""
    end = SystemClock().now() + timedelta(days=30)
    key = ec.generate_private_key(ec.SECP256R1())
    async with by_dns(stepca) as we:
        order = await we.upstream.open_order(request(f"www.{ZONE}", not_after=end))
        order = await we.upstream.authorize(order)
        with pytest.raises(Unreachable, match="500"):
            await we.upstream.finalize(order, csr_der(key, f"www.{ZONE}"))


async def test_step_ca_goes_on_looking_and_we_do_not_wait_for_ever(stepca: World) -> None:
    """It never gives up on a challenge; our round ends, and the next one finds it valid."""
    answers = Http01Answers()
    solvers = [Http01Solver(answers)]
    directory_url, ca_bundle = stepca.ca.directory_url, stepca.ca.ca_bundle
    total = timedelta(seconds=1)
    async with standing(directory_url, ca_bundle, solvers=solvers, total=total) as we:
        await we.register()
        order = await we.upstream.open_order(request(f"b.{ZONE}"))
        with pytest.raises(Unreachable, match="still pending after 1 s"):
            await we.upstream.authorize(order)
        assert len(answers) == 0
        async with http_solver(stepca.http_port, answers):
            assert (await we.upstream.authorize(order)).status is OrderStatus.READY
