"""Connections to a real Vault: kept, led elsewhere, cut, slow, sealed, and back again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Unreachable
from broker.keys.vault_answers import VaultState
from broker.keys.vault_session import VaultConnections, VaultNotFound, VaultSession
from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings
from tests.deployments.between import Between
from tests.peers import authority, process
from tests.peers.vault import Vault

pytestmark = pytest.mark.peers

MOUNT: Final = "transit"
SIGN: Final = "transit/sign/key/sha2-256"
INPUT: Final = {"input": "aGVsbG8="}
LIMIT: Final = 0.5
"""Time limit of one request where one is waited for in vain, in seconds."""

Connect = Callable[..., VaultConnections]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A Vault for this module, which is sealed and stopped now and then."""
    made = Vault(tmp_path_factory.mktemp("vault"))
    made.start()
    made.enable("transit", MOUNT)
    made.ask("POST", f"{MOUNT}/keys/key", {"type": "ecdsa-p256"})
    made.enable("kv", "kv", options={"version": "2"})
    made.ask("POST", "kv/data/penstock/eab", {"data": {"mac_key": "AAAA"}})
    yield made
    made.stop()


@pytest.fixture
def between(server: Vault, tmp_path: Path) -> Iterator[Between]:
    """A proxy before it."""
    with Between(tmp_path / "between", server.port, server.ca_bundle) as made:
        yield made


@pytest.fixture
async def connect(server: Vault, tmp_path: Path) -> AsyncIterator[Connect]:
    """Make connections; they are closed after the test."""
    made: list[VaultConnections] = []

    def make(*addresses: str, bundle: Path, limit: float = 5.0, **options: Any) -> VaultConnections:
        settings = VaultSettings(
            addresses=addresses,
            state_dir=tmp_path,
            ca_bundle=bundle,
            timeout=timedelta(seconds=limit),
            identities={
                "": Identity(
                    serve=TokenSettings(read_token=server.root_token.encode, place="here"),
                    rotate=TokenSettings(read_token=server.root_token.encode, place="here"),
                )
            },
            **options,
        )
        made.append(VaultConnections(settings, SystemClock()))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def url_of(between: Between) -> str:
    """Return the proxy's address."""
    return f"https://127.0.0.1:{between.port}"


def both(tmp_path: Path, *bundles: Path) -> Path:
    """Return one bundle of several."""
    path = tmp_path / "both.pem"
    path.write_bytes(b"".join(bundle.read_bytes() for bundle in bundles))
    return path


async def is_signing(session: VaultSession) -> bool:
    """Sign something, and say whether a signature came back."""
    answer = await session.post(SIGN, INPUT)
    return str(answer["signature"]).startswith("vault:v1:")


def read_key(client: Any, name: str = "key") -> Any:
    """Read a key by hvac."""
    return client.secrets.transit.read_key(name, MOUNT)


def rotate_once(client: Any) -> Any:
    """Rotate a key by hvac."""
    return client.secrets.transit.rotate_key("once", mount_point=MOUNT)


async def back(returned: asyncio.Event) -> None:
    """Wait until it is told that Vault is back."""
    async with asyncio.timeout(30):
        await returned.wait()


# ------------------------------------------------------------------------------- connections


async def test_signatures_one_after_another_take_one_connection(
    between: Between, connect: Connect
) -> None:
    """Fifty signatures, one connection; thirty-two at once take at most as many."""
    session = connect(url_of(between), bundle=between.ca_bundle).serving(MOUNT)
    assert await is_signing(session)
    before = between.connections
    for _ in range(50):
        assert await is_signing(session)
    assert between.connections == before
    assert all(await asyncio.gather(*(is_signing(session) for _ in range(64))))
    assert between.connections - before <= 31


async def test_hvac_keeps_its_connections_too(between: Between, connect: Connect) -> None:
    """Ten reads in its threads take one connection."""
    session = connect(url_of(between), bundle=between.ca_bundle).serving(MOUNT)
    for _ in range(10):
        await session.run(read_key)
    assert between.connections <= 2


async def test_connection_that_breaks_is_made_anew(between: Between, connect: Connect) -> None:
    """What a balancer does to an idle connection costs nobody a signature."""
    session = connect(url_of(between), bundle=between.ca_bundle).serving(MOUNT)
    assert await is_signing(session)
    aim = between.aim("/sign/", is_cut=True, reaches_ca=False)
    assert await is_signing(session)
    assert aim.count == 1


async def test_hvac_waits_in_threads_and_not_on_the_loop(
    between: Between, connect: Connect
) -> None:
    """While four calls hang, and more wait for a thread, signatures go on."""
    session = connect(url_of(between), bundle=between.ca_bundle).serving(MOUNT)
    assert await is_signing(session)
    between.aim("/keys/key", seconds=0.3, stays=True)
    calls = [asyncio.create_task(session.run(read_key)) for _ in range(6)]
    signed = 0
    while not all(each.done() for each in calls):
        assert await is_signing(session)
        signed += 1
    # Had they waited for the calls, there would have been one for each round of them at most.
    assert signed > len(calls)
    await asyncio.gather(*calls)


# ------------------------------------------------------------------------------------ faults


async def test_sealed_vault_is_unreachable_until_it_is_unsealed(
    server: Vault, connect: Connect
) -> None:
    """The return is noticed without anybody asking."""
    connections = connect(server.url, bundle=server.ca_bundle)
    returned = asyncio.Event()
    connections.on_return = returned.set
    connections.watch()
    session = connections.serving(MOUNT)
    assert await is_signing(session)
    await asyncio.to_thread(server.seal)
    try:
        with pytest.raises(Unreachable, match="sealed") as raised:
            await is_signing(session)
        assert raised.value.left_nothing
        assert session.health().state is VaultState.SEALED
        since = session.health().since
        with pytest.raises(Unreachable):
            await is_signing(session)
        assert session.health().since == since
    finally:
        await asyncio.to_thread(server.unseal)
    await back(returned)
    assert session.health().state is VaultState.OK
    assert await is_signing(session)


async def test_vault_that_is_killed_and_started_again_is_met_within_seconds(
    server: Vault, connect: Connect
) -> None:
    """Its token outlives it, and so does everything here."""
    connections = connect(server.url, bundle=server.ca_bundle)
    returned = asyncio.Event()
    connections.on_return = returned.set
    connections.watch()
    session = connections.serving(MOUNT)
    assert await is_signing(session)
    await asyncio.to_thread(server.kill)
    with pytest.raises(Unreachable, match="connect"):
        await is_signing(session)
    assert session.health().state is VaultState.UNREACHABLE
    await asyncio.to_thread(server.restart)
    await back(returned)
    assert await is_signing(session)


@pytest.mark.parametrize(
    ("status", "headers", "state"),
    [
        pytest.param(500, {}, VaultState.FAILING, id="500"),
        pytest.param(502, {}, VaultState.FAILING, id="502"),
        pytest.param(503, {}, VaultState.FAILING, id="503-of-a-balancer"),
        pytest.param(472, {}, VaultState.FAILING, id="472-disaster-recovery"),
        pytest.param(473, {}, VaultState.FAILING, id="473-performance-standby"),
        pytest.param(429, {"Retry-After": "1"}, VaultState.LIMITED, id="429"),
        pytest.param(403, {}, VaultState.DENIED, id="403"),
        pytest.param(
            307, {"Location": "https://127.0.0.1:1/v1/x"}, VaultState.REDIRECTING, id="307"
        ),
    ],
)
async def test_every_fault_is_unreachable_and_heals(
    between: Between, connect: Connect, status: int, headers: dict[str, str], state: VaultState
) -> None:
    """None of these is a reason to stop; the session works as soon as the fault is gone."""
    connections = connect(url_of(between), bundle=between.ca_bundle)
    session = connections.serving(MOUNT)
    assert await is_signing(session)
    between.aim(
        "/sign/",
        status=status,
        headers=headers,
        body=b'{"errors":[]}',
        reaches_ca=False,
        stays=True,
    )
    with pytest.raises(Unreachable, match=str(status) if status != 307 else "redirects") as raised:
        await is_signing(session)
    assert raised.value.left_nothing
    assert (raised.value.retry_at is not None) == (status == 429)
    assert session.health().state is state
    between.stop_aiming()
    assert await is_signing(session)
    assert session.health().state is VaultState.OK


async def test_fault_of_all_requests_is_noticed_to_have_ended(
    between: Between, connect: Connect
) -> None:
    """A proxy that answers 403 to everything, logins included, is met again within seconds."""
    connections = connect(url_of(between), bundle=between.ca_bundle)
    returned = asyncio.Event()
    connections.on_return = returned.set
    between.aim(
        "/v1/", status=403, body=b'{"errors":["permission denied"]}', stays=True, reaches_ca=False
    )
    connections.watch()
    session = connections.serving(MOUNT)
    with pytest.raises(Unreachable, match="403"):
        await is_signing(session)
    between.stop_aiming()
    await back(returned)
    assert await is_signing(session)


async def test_slow_vault_is_given_up_in_time(between: Between, connect: Connect) -> None:
    """Thirty seconds are not waited for; what asks next is told at once."""
    session = connect(url_of(between), bundle=between.ca_bundle, limit=LIMIT).serving(MOUNT)
    assert await is_signing(session)
    between.aim("/v1/", reaches_ca=False, stays=True)
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
        await is_signing(session)
    asked = len(between.paths)
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
        await is_signing(session)
    assert len(between.paths) == asked
    assert session.health().state is VaultState.SLOW


async def test_one_slow_request_among_answered_ones_stops_nobody(
    between: Between, connect: Connect
) -> None:
    """The node is not left out for it."""
    session = connect(url_of(between), bundle=between.ca_bundle, limit=1.0).serving(MOUNT)
    assert await is_signing(session)
    between.aim("/keys/key", reaches_ca=False)
    slow = asyncio.create_task(session.get("transit/keys/key"))
    while not slow.done():
        assert await is_signing(session)
        await asyncio.sleep(0.02)
    with pytest.raises(Unreachable):
        await slow
    assert await is_signing(session)


async def test_what_may_have_been_done_is_not_done_again(
    between: Between, connect: Connect, server: Vault, tmp_path: Path
) -> None:
    """A rotation whose answer is lost is made once, though there is another address."""
    server.ask("POST", f"{MOUNT}/keys/once", {"type": "ecdsa-p256"})
    bundle = both(tmp_path, between.ca_bundle, server.ca_bundle)
    connections = connect(url_of(between), server.url, bundle=bundle)
    between.aim("/keys/once/rotate", is_cut=True)
    with pytest.raises(Unreachable) as raised:
        async with connections.rotating(MOUNT) as session:
            await session.run(rotate_once)
    assert not raised.value.left_nothing
    found = server.ask("GET", f"{MOUNT}/keys/once")["data"]
    assert found["latest_version"] == 2


async def test_answers_that_only_a_person_can_change_are_broken(
    server: Vault, connect: Connect
) -> None:
    """A key that is not there, a mount that is not there, a request that makes no sense."""
    session = connect(server.url, bundle=server.ca_bundle).serving(MOUNT)
    with pytest.raises(VaultNotFound):
        await session.get("transit/keys/nobody")
    with pytest.raises(VaultNotFound):
        await session.run(lambda client: read_key(client, "nobody"))
    with pytest.raises(Broken, match="nothing is mounted") as raised:
        await session.get("nowhere/keys/key")
    assert not isinstance(raised.value, VaultNotFound)
    with pytest.raises(Broken, match="400"):
        await session.post("transit/sign/key/sha2-256", {"input": "not base64!"})
    with pytest.raises(Broken, match="requested version"):
        await session.post(SIGN, {**INPUT, "key_version": 99})
    assert session.health().state is VaultState.OK


async def test_values_in_kv_are_read(server: Vault, connect: Connect) -> None:
    """Over the kept connection and by hvac alike."""
    session = connect(server.url, bundle=server.ca_bundle).serving("kv")
    assert (await session.get("kv/data/penstock/eab"))["data"] == {"mac_key": "AAAA"}
    read = await session.run(
        lambda client: client.secrets.kv.v2.read_secret_version(
            "penstock/eab", mount_point="kv", raise_on_deleted_version=True
        )
    )
    assert read["data"]["data"] == {"mac_key": "AAAA"}


# --------------------------------------------------------------------------------- addresses


async def test_next_address_is_asked_and_the_first_one_again_after_its_return(
    between: Between, server: Vault, connect: Connect, tmp_path: Path
) -> None:
    """Nobody notices but the addresses themselves."""
    bundle = both(tmp_path, between.ca_bundle, server.ca_bundle)
    connections = connect(url_of(between), server.url, bundle=bundle)
    connections.watch()
    session = connections.serving(MOUNT)
    assert await is_signing(session)
    between.aim(
        "/v1/", status=503, body=b'{"errors":["Vault is sealed"]}', stays=True, reaches_ca=False
    )
    for _ in range(5):
        assert await is_signing(session)
    assert session.health().state is VaultState.OK
    # One before, one that found it out, and one more where a look that was under way by then had
    # its answer late.
    assert sum("/sign/" in path for path in between.paths) <= 3, "it is left out meanwhile"
    between.stop_aiming()
    asked = len(between.paths)
    async with asyncio.timeout(30):
        while not any("/sign/" in path for path in between.paths[asked:]):
            assert await is_signing(session)
            await asyncio.sleep(0.1)


async def test_dead_and_silent_addresses_are_passed_over(server: Vault, connect: Connect) -> None:
    """One refuses connections, one accepts them and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0)
        dead = f"https://127.0.0.1:{process.free_port()}"
        mute = f"https://127.0.0.1:{silent.getsockname()[1]}"
        session = connect(dead, mute, server.url, bundle=server.ca_bundle, limit=LIMIT).serving(
            MOUNT
        )
        assert await is_signing(session)
        silent.accept()[0].close()
        assert await is_signing(session)
        with pytest.raises(BlockingIOError):
            silent.accept()


async def test_redirect_is_followed_to_an_address_of_ours_alone(
    between: Between, server: Vault, connect: Connect, tmp_path: Path
) -> None:
    """A standby that names the active node is believed where that is configured."""
    with Between(tmp_path / "stranger", server.port, server.ca_bundle) as stranger:
        bundle = both(tmp_path, between.ca_bundle, server.ca_bundle, stranger.ca_bundle)
        session = connect(url_of(between), server.url, bundle=bundle).serving(MOUNT)
        assert await is_signing(session)
        aim = between.aim(
            "/sign/",
            status=307,
            reaches_ca=False,
            stays=True,
            headers={"Location": f"{server.url}/v1/{SIGN}"},
        )
        assert await is_signing(session)
        assert aim.count == 1
        between.stop_aiming()

        alone = connect(url_of(between), bundle=bundle).serving(MOUNT)
        between.aim(
            "/sign/",
            status=307,
            reaches_ca=False,
            stays=True,
            headers={"Location": f"{url_of(stranger)}/v1/{SIGN}"},
        )
        with pytest.raises(Unreachable, match="not among the addresses"):
            await is_signing(alone)
        assert not stranger.paths, "nothing was sent there, the token least of all"


# --------------------------------------------------------------------------------------- TLS


async def test_server_of_another_root_gets_no_token(
    between: Between, connect: Connect, tmp_path: Path
) -> None:
    """Neither by a signature nor by hvac; the right bundle lets both through."""
    other = tmp_path / "other.pem"
    other.write_bytes(authority.make_root("others").certificate_pem)
    session = connect(url_of(between), bundle=other).serving(MOUNT)
    for ask in (
        is_signing,
        lambda each: each.run(read_key),
    ):
        with pytest.raises(Unreachable, match="certificate is not trusted") as raised:
            await ask(session)
        assert raised.value.left_nothing
    assert session.health().state is VaultState.UNTRUSTED
    assert not between.paths
    assert await is_signing(connect(url_of(between), bundle=between.ca_bundle).serving(MOUNT))


async def test_certificate_for_another_host_gets_no_token(server: Vault, connect: Connect) -> None:
    """A name that the certificate does not have is refused as well."""
    url = f"https://127.0.0.2:{server.port}"
    with pytest.raises(Unreachable):
        await is_signing(connect(url, bundle=server.ca_bundle).serving(MOUNT))
