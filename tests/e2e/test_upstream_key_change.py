"""Our account key at a real CA is changed while certificates are in use, whatever happens to us.

Pebble stands behind a man in the middle, who holds, drops and forges answers; the broker is a
process that is killed and started again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.deployments.between import Aim, Between
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

KEY_CHANGE: Final = r"/rollover-account-key$"
NEW_ACCOUNT: Final = r"/sign-me-up$"
TRUSTED: Final = "trusted-tests"

SETTLE_SECONDS: Final = 90.0
"""Longest time until a broker has settled what a crash left: it looks every 5 s."""


class Scene:
    """A broker in front of Pebble, with somebody in between."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        plain = process.free_port()
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=dns.dns_address,
                options=PebbleOptions(nonce_reject_percent=15),
            )
        )
        self.between = stack.enter_context(
            Between(tmp / "between", self.pebble.port, self.pebble.ca_bundle)
        )
        ca = AcmeCa(
            name="pebble",
            directory_url=f"https://127.0.0.1:{self.between.port}/dir",
            ca_bundle=self.between.ca_bundle,
            description="pebble",
        )
        raw = secrets.token_bytes(32)
        self.mac = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        trusted = {
            "eab": [TRUSTED],
            "names": ["**.example.test"],
            "profiles": ["server"],
            "because": "the tests say so",
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain,
            upstreams=[ca],
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "1s"},
            more={
                "external_account_bindings": [
                    {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
                ]
            },
        )
        stack.enter_context(self.penstock)

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Ask the running broker."""
        return await Operator(self.penstock.state / "operator.sock").ask(command, **arguments)

    async def thumbprint(self) -> str:
        """Return the thumbprint of the account's key, as the broker has it."""
        rows = await self.ask("upstream_list")
        (account,) = next(row for row in rows if row["upstream"] == "pebble")["accounts"]
        return str(account["thumbprint"])

    async def change(self) -> str:
        """Change the key and return its thumbprint."""
        (row,) = await self.ask("upstream_rotate_key", upstream="pebble")
        return str(row["thumbprint"])

    async def faults(self) -> list[str]:
        """Return what ``upstream check`` finds."""
        (row,) = await self.ask("upstream_check", upstream="pebble")
        return list(row["faults"])

    async def sound(self) -> None:
        """Wait until nothing stands between us and the CA."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while await self.faults():  # noqa: ASYNC110 - a process cannot be awaited otherwise
                await asyncio.sleep(0.2)

    def restart(self) -> None:
        """Kill the broker and start it again."""
        self.penstock.kill()
        self.penstock.start()

    def keys(self) -> set[str]:
        """Return the names of the account's key files."""
        return {path.name for path in (self.penstock.state / "keys").glob("account-pebble@*")}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The deployment."""
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("keys"), stack)


@pytest.fixture(autouse=True)
async def _clear(scene: Scene) -> AsyncIterator[None]:
    """Whatever was aimed at and did not come is forgotten, and the account is sound."""
    yield
    scene.between.aims.clear()
    await scene.sound()


@pytest.fixture
async def requester(scene: Scene) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name."""
    made = Requester(scene.penstock.directory_url, scene.penstock.ca_bundle)
    async with made as requester:
        assert (await requester.bind(TRUSTED, scene.mac)).status in (200, 201)
        yield requester


async def obtain(requester: Requester) -> x509.Certificate:
    """Order one certificate and return it."""
    requester.nonce = None  # the broker may have been started again since
    placed = await requester.request(f"h{secrets.token_hex(4)}.example.test")
    assert await placed.settled() == "valid", placed.order
    return (await placed.chain())[0]


async def revoke(scene: Scene, requester: Requester, leaf: x509.Certificate) -> None:
    """Revoke a certificate as its owner, and see that the CA has done so."""
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 4}
    answer = await requester.post(requester.directory["revokeCert"], payload)
    assert answer.status == 200, answer.body
    serial = f"{leaf.serial_number:x}"
    async with asyncio.timeout(SETTLE_SECONDS):
        while not scene.pebble.status(serial).is_revoked:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


async def test_certificates_in_use_survive_a_change(scene: Scene, requester: Requester) -> None:
    """Ordered before, it is revoked after; orders that are under way meanwhile all succeed."""
    before = await obtain(requester)
    first = await scene.thumbprint()
    orders = [asyncio.ensure_future(obtain(requester)) for _ in range(4)]
    thumbprints = {first}
    for _ in range(3):
        await asyncio.sleep(0.3)
        thumbprints.add(await scene.change())
    leaves = await asyncio.gather(*orders)
    assert len(thumbprints) == 4
    assert len({leaf.serial_number for leaf in leaves}) == 4
    assert await scene.faults() == []
    await obtain(requester)
    await revoke(scene, requester, before)


@pytest.mark.parametrize(
    ("reaches_ca", "twice"),
    [(False, False), (True, False), (True, True)],
    ids=["before", "after", "after-and-again"],
)
async def test_broker_is_killed_at_the_change(
    scene: Scene, requester: Requester, reaches_ca: bool, twice: bool
) -> None:
    """SIGKILL before the CA has the wish, or after it has granted it; and again while asking."""
    before = await obtain(requester)
    old, names = await scene.thumbprint(), scene.keys()
    aim = scene.between.aim(KEY_CHANGE, reaches_ca=reaches_ca)
    changing = asyncio.ensure_future(scene.change())
    await struck(aim)
    if twice:
        probe = scene.between.aim(NEW_ACCOUNT)
        await asyncio.to_thread(scene.restart)
        await struck(probe)
    await asyncio.to_thread(scene.restart)
    await asyncio.gather(changing, return_exceptions=True)
    await scene.sound()
    assert (await scene.thumbprint() != old) == reaches_ca
    assert len(scene.keys() - names) == int(reaches_ca)
    await obtain(requester)
    await revoke(scene, requester, before)


CONFLICT: Final = json.dumps(
    {"type": "urn:ietf:params:acme:error:malformed", "detail": "key is in use"}
).encode()


@pytest.mark.parametrize(
    ("aimed", "is_changed"),
    [
        pytest.param({"status": 409, "body": CONFLICT, "reaches_ca": False}, False, id="409"),
        pytest.param({"status": 500, "reaches_ca": False}, False, id="500"),
        pytest.param({"status": 502, "reaches_ca": True}, True, id="500-and-done"),
        pytest.param(
            {"status": 409, "body": CONFLICT, "reaches_ca": True}, True, id="409-and-done"
        ),
        pytest.param({"status": 200, "body": b"<html>", "reaches_ca": False}, False, id="nonsense"),
    ],
)
async def test_ca_that_answers_oddly(
    scene: Scene, requester: Requester, aimed: Mapping[str, Any], is_changed: bool
) -> None:
    """What the CA says is not believed: which key it knows is asked, and the account works."""
    old, names = await scene.thumbprint(), scene.keys()
    scene.between.aim(KEY_CHANGE, **aimed)
    if is_changed:
        await scene.change()
    else:
        with pytest.raises(process.PeerFailed):
            await scene.change()
    await scene.sound()
    assert (await scene.thumbprint() != old) == is_changed
    assert len(scene.keys() - names) == int(is_changed)
    await obtain(requester)


async def test_orders_wait_while_the_key_is_in_doubt(scene: Scene, requester: Requester) -> None:
    """The CA is away just when it is asked: an order of that time waits, and is not refused."""
    probe = scene.between.aim(NEW_ACCOUNT, status=500, stays=True)
    scene.between.aim(KEY_CHANGE, status=502)
    with pytest.raises(process.PeerFailed, match="500"):
        await scene.change()
    assert probe.struck.is_set()
    assert "has not ended" in (await scene.faults())[0]
    placed = await requester.request(f"h{secrets.token_hex(4)}.example.test")
    assert placed.status == "processing"
    scene.between.stop_aiming()
    await scene.sound()
    assert await placed.settled() == "valid"


async def struck(aim: Aim) -> None:
    """Wait until the request that was aimed at has come."""
    assert await asyncio.to_thread(aim.struck.wait, 30), f"{aim.path} was not asked for"
