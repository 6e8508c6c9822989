"""Account keys in Vault are rotated under running orders, whatever happens to us meanwhile.

A real Vault and a real Pebble, a man in the middle before each of them, and a broker that is killed
and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import SystemClock
from tests.deployments.between import Aim, Between
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Placed, Requester
from tests.deployments.vaulted import Transit, vault_section
from tests.fakes.hostile_ca.envelope import b64
from tests.interop.test_renewal import cert_id
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.peers.stepca import StepCa
from tests.peers.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

NAME: Final = "penstock.default.ca"
TRUSTED: Final = "trusted-tests"

KEY_CHANGE: Final = r"/rollover-account-key$"
NEW_ACCOUNT: Final = r"/sign-me-up$"
ROTATE: Final = rf"/keys/{NAME}/rotate$"
CONFIGURE: Final = rf"/keys/{NAME}/config$"
SIGN: Final = rf"/sign/{NAME}/"

SOUND_SECONDS: Final = 120.0
"""Longest time until a broker has settled what a crash left and retired what came before: it looks
every 5 s, and again a minute after a retirement that failed."""

CLIENTS: Final = 8
ORDERS_EACH: Final = 5
ROTATIONS: Final = 3
LONGEST_SECONDS: Final = 30.0
"""Longest time that an order may take while keys are rotated: a client waits for so long."""


class Scene:
    """A broker between a CA and a Vault, with somebody in between on either side."""

    def __init__(self, tmp: Path, stack: ExitStack, ca: Pebble | StepCa, plain_port: int) -> None:
        self.ca = ca
        self.vault = stack.enter_context(Vault(tmp / "vault", storage="inmem"))
        (tmp / "transit").mkdir()
        self.transit = Transit(self.vault, tmp / "transit", "transit-penstock", [NAME])
        self.to_ca = stack.enter_context(Between(tmp / "to-ca", ca.port, ca.ca_bundle))
        self.to_vault = stack.enter_context(
            Between(tmp / "to-vault", self.vault.port, self.vault.ca_bundle)
        )
        directory = ca.directory_url.replace(f":{ca.port}/", f":{self.to_ca.port}/")
        self.options: dict[str, Any] = {
            "account_key": {"store": self.transit.store},
            "poll_interval": "100ms",
        }
        self.more: dict[str, Any] = {"vault": self.vault_section()}
        raw = secrets.token_bytes(32)
        self.mac = b64(raw)
        self.more["external_account_bindings"] = [
            {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
        ]
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain_port,
            upstreams=[
                AcmeCa(
                    name="ca",
                    directory_url=directory,
                    ca_bundle=self.to_ca.ca_bundle,
                    description="pebble",
                    options=self.options,
                )
            ],
            policy={
                "trusted": [
                    {
                        "eab": [TRUSTED],
                        "names": ["**.example.test"],
                        "profiles": ["server"],
                        "because": "the tests say so",
                    }
                ]
            },
            limits={"finalize_wait": "1s"},
            more=self.more,
        )
        stack.enter_context(self.penstock)

    def vault_section(self, **more: Any) -> dict[str, Any]:
        """Return the section ``vault``, by way of who is in between."""
        address = f"https://127.0.0.1:{self.to_vault.port}"
        bundle = str(self.to_vault.ca_bundle)
        return vault_section(self.transit, addresses=[address], ca_bundle=bundle, **more)

    # ------------------------------------------------------------------------------- the broker

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Ask the running broker."""
        return await Operator(self.penstock.state / "operator.sock").ask(command, **arguments)

    async def rotate(self) -> int:
        """Rotate the key and return the version that the account has then."""
        (row,) = await self.ask("upstream_rotate_key", upstream="ca")
        return version_of(row["key"])

    async def key(self) -> Mapping[str, Any]:
        """Return how the account's key is, as the broker says."""
        (account,) = (await self.ask("upstream_show", upstream="ca"))["accounts"]
        key: Mapping[str, Any] = account["key"]
        return key

    async def version(self) -> int:
        """Return the version that is pinned."""
        return version_of((await self.key())["id"])

    async def faults(self) -> list[str]:
        """Return what ``upstream check`` finds."""
        (row,) = await self.ask("upstream_check", upstream="ca")
        return list(row["faults"])

    async def sound(self) -> None:
        """Wait until the account works, and no version but the pinned one and later ones signs."""
        async with asyncio.timeout(SOUND_SECONDS):
            while True:
                with contextlib.suppress(process.PeerFailed):
                    if not await self.faults() and self.oldest_signing() == await self.version():
                        return
                await asyncio.sleep(0.2)

    def restart(self) -> None:
        """Kill the broker and start it again."""
        self.penstock.kill()
        self.penstock.start()

    def reconfigure(self) -> None:
        """Start the broker with what the configuration is by now."""
        self.penstock.write()
        self.restart()

    def changes(self) -> list[tuple[str, str]]:
        """Return the journal: (new key, status), oldest first."""
        return self.rows("SELECT new_key_id, status FROM upstream_key_changes ORDER BY rowid")

    def rows(self, statement: str, *values: object) -> list[Any]:
        """Return what the store has, read past the broker."""
        uri = f"file:{self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute(statement, values).fetchall()

    # ---------------------------------------------------------------------------------- the vault

    def latest(self) -> int:
        """Return the latest version of the key."""
        return int(self.transit.key(NAME)["latest_version"])

    def oldest_signing(self) -> int:
        """Return the oldest version that signs."""
        return max(1, int(self.transit.key(NAME)["min_encryption_version"]))

    def write_rotate_token(self, token: str) -> None:
        """Have the identity that rotates log in by another token."""
        Path(self.transit.rotate["token"].removeprefix("file:")).write_text(token, "ascii")

    def signs(self, version: int) -> bool:
        """Return whether Vault signs with a version, asked by the one who may do everything."""
        wish = {"input": "ZGF0YQ==", "key_version": version, "marshaling_algorithm": "jws"}
        try:
            self.vault.ask("POST", f"{self.transit.mount}/sign/{NAME}/sha2-256", wish)
        except process.PeerFailed:
            return False
        return True


def version_of(key_id: str) -> int:
    """Return the version that an id names."""
    return int(key_id.rpartition("#")[2])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The deployment with Pebble."""
    tmp = tmp_path_factory.mktemp("rotation")
    with ExitStack() as stack:
        plain = process.free_port()
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=dns.dns_address,
                options=PebbleOptions(nonce_reject_percent=15),
            )
        )
        yield Scene(tmp, stack, pebble, plain)


@pytest.fixture(autouse=True)
async def _clear(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Whatever was aimed at and did not come is forgotten, and the account is sound."""
    yield
    if "scene" in request.fixturenames:
        scene: Scene = request.getfixturevalue("scene")
        scene.to_ca.stop_aiming()
        scene.to_vault.stop_aiming()
        await scene.sound()


@contextlib.asynccontextmanager
async def client(scene: Scene) -> AsyncIterator[Requester]:
    """Yield a client that policy trusts with every name."""
    async with Requester(scene.penstock.directory_url, scene.penstock.ca_bundle) as made:
        assert (await made.bind(TRUSTED, scene.mac)).status in (200, 201)
        yield made


@pytest.fixture
async def requester(scene: Scene) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name."""
    async with client(scene) as made:
        yield made


def fresh_name() -> str:
    """Return a name that nobody has ordered."""
    return f"h{secrets.token_hex(4)}.example.test"


async def place(requester: Requester, name: str, **members: Any) -> Placed:
    """Place an order of a client that may have lost its broker since."""
    requester.nonce = None
    return await requester.request(name, **members)


async def obtain(requester: Requester, name: str | None = None, **members: Any) -> x509.Certificate:
    """Order one certificate and return it."""
    placed = await place(requester, name or fresh_name(), **members)
    assert await placed.settled() == "valid", placed.order
    return (await placed.chain())[0]


async def revoke(scene: Scene, requester: Requester, leaf: x509.Certificate) -> None:
    """Revoke a certificate as its owner, and see that the CA has done so."""
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 4}
    requester.nonce = None
    answer = await requester.post(requester.directory["revokeCert"], payload)
    assert answer.status == 200, answer.body
    assert isinstance(scene.ca, Pebble)
    async with asyncio.timeout(SOUND_SECONDS):
        while not scene.ca.status(f"{leaf.serial_number:x}").is_revoked:  # noqa: ASYNC110 - a process cannot be awaited otherwise
            await asyncio.sleep(0.1)


async def struck(aim: Aim) -> None:
    """Wait until the request that was aimed at has come."""
    assert await asyncio.to_thread(aim.struck.wait, 30), f"{aim.path} was not asked for"


# ------------------------------------------------------------------------------- what it is about


async def test_key_is_rotated_and_what_was_before_signs_no_more(
    scene: Scene, requester: Requester
) -> None:
    """A renewal after it is told to the CA as one, and what was ordered before it is revoked."""
    name = fresh_name()
    before = await obtain(requester, name)
    old = await scene.version()
    assert await scene.rotate() == old + 1
    assert scene.oldest_signing() == old + 1
    assert not scene.signs(old)
    assert scene.signs(old + 1)
    assert await scene.faults() == []
    key = await scene.key()
    await scene.ask("upstream_register", upstream="ca", agree_to_terms=True)
    assert await scene.key() == key, "whoever registers again finds the account as it is"
    successor = cert_id(before)
    placed = await place(requester, name, replaces=successor)
    assert await placed.settled() == "valid"
    ((told,),) = scene.rows("SELECT replaces FROM work WHERE taken_by = ?", placed.order_id)
    assert told == successor
    await revoke(scene, requester, before)
    serve = scene.vault.ask("GET", "auth/token/lookup-self", token=scene.transit.serve_token)
    assert serve["data"]["policies"] == ["transit-penstock-serve"]


async def test_rotation_under_load_loses_no_order(scene: Scene) -> None:
    """Eight clients order at once while the key is rotated three times; each order is issued once,
    and nobody waits for long."""
    assert isinstance(scene.ca, Pebble)
    issued, old = len(scene.ca.issued()), await scene.version()
    seconds: list[float] = []

    async def order_some() -> list[int]:
        async with client(scene) as made:
            serials = []
            for _ in range(ORDERS_EACH):
                began = time.monotonic()
                serials.append((await obtain(made)).serial_number)
                seconds.append(time.monotonic() - began)
            return serials

    clients = [asyncio.ensure_future(order_some()) for _ in range(CLIENTS)]
    rotations = []
    for _ in range(ROTATIONS):
        done = len(seconds)
        while len(seconds) < done + CLIENTS and not all(one.done() for one in clients):
            await asyncio.wait(clients, timeout=0.05)
        began = time.monotonic()
        await scene.rotate()
        rotations.append(time.monotonic() - began)
    serials = [serial for one in await asyncio.gather(*clients) for serial in one]
    assert len(set(serials)) == CLIENTS * ORDERS_EACH
    assert len(scene.ca.issued()) - issued == CLIENTS * ORDERS_EACH
    assert await scene.version() == old + ROTATIONS
    assert [scene.signs(old + number) for number in range(ROTATIONS + 1)] == [
        *[False] * ROTATIONS,
        True,
    ]
    seconds.sort()
    median, longest = seconds[len(seconds) // 2], seconds[-1]
    told = (
        f"{len(seconds)} orders by {CLIENTS} clients during {ROTATIONS} rotations: median "
        f"{median:.2f} s, longest {longest:.2f} s, rotations {[round(one, 2) for one in rotations]}"
    )
    assert longest < LONGEST_SECONDS, told


# --------------------------------------------------------------------------------- killed anywhere

KILLS: Final = (
    pytest.param("vault", ROTATE, False, False, id="before-the-version-is-made"),
    pytest.param("vault", ROTATE, True, False, id="after-the-version-is-made"),
    pytest.param("vault", SIGN, False, False, id="before-the-first-signature"),
    pytest.param("ca", KEY_CHANGE, False, False, id="before-the-ca-knows"),
    pytest.param("ca", KEY_CHANGE, True, True, id="after-the-ca-knows"),
    pytest.param("ca", NEW_ACCOUNT, True, True, id="before-the-version-is-pinned"),
    pytest.param("vault", CONFIGURE, False, True, id="before-the-old-one-is-retired"),
    pytest.param("vault", CONFIGURE, True, True, id="after-the-old-one-is-retired"),
)
"""Where, at which request, whether it takes effect, and whether the account has the new key."""


@pytest.mark.parametrize(("side", "path", "arrives", "is_changed"), KILLS)
async def test_broker_that_is_killed_ends_or_undoes_it(
    scene: Scene, requester: Requester, side: str, path: str, arrives: bool, is_changed: bool
) -> None:
    """By SIGKILL, at each step; the account works throughout, with exactly one version pinned."""
    old = await scene.version()
    between = scene.to_ca if side == "ca" else scene.to_vault
    aim = between.aim(path, reaches_ca=arrives)
    rotating = asyncio.ensure_future(scene.rotate())
    await struck(aim)
    await asyncio.to_thread(scene.restart)
    await asyncio.gather(rotating, return_exceptions=True)
    await scene.sound()
    pinned = await scene.version()
    assert (pinned != old) == is_changed
    assert not any(scene.signs(version) for version in range(1, pinned))
    assert scene.signs(pinned)
    assert not [status for _, status in scene.changes() if status == "begun"]
    await obtain(requester)
    latest = scene.latest()
    assert latest <= pinned + 1
    assert await scene.rotate() == max(pinned + 1, latest)
    assert scene.latest() == max(pinned + 1, latest), "a version that was left is used next"


async def test_broker_that_is_killed_while_it_settles_settles_again(
    scene: Scene, requester: Requester
) -> None:
    """The second start mends what the first one left."""
    old = await scene.version()
    aim = scene.to_ca.aim(KEY_CHANGE, reaches_ca=True)
    rotating = asyncio.ensure_future(scene.rotate())
    await struck(aim)
    probe = scene.to_ca.aim(NEW_ACCOUNT)
    await asyncio.to_thread(scene.restart)
    await struck(probe)
    await asyncio.to_thread(scene.restart)
    await asyncio.gather(rotating, return_exceptions=True)
    await scene.sound()
    assert await scene.version() == old + 1
    await obtain(requester)


# ------------------------------------------------------------------------------ others that fail

CONFLICT: Final = json.dumps(
    {"type": "urn:ietf:params:acme:error:malformed", "detail": "key is in use"}
).encode()


@pytest.mark.parametrize(
    ("aimed", "is_changed"),
    [
        pytest.param({"status": 409, "body": CONFLICT, "reaches_ca": False}, False, id="409"),
        pytest.param({"status": 500, "reaches_ca": False}, False, id="500"),
        pytest.param({"status": 502, "reaches_ca": True}, True, id="lost-answer"),
        pytest.param({"is_cut": True, "reaches_ca": False}, False, id="cut"),
    ],
)
async def test_ca_that_answers_oddly(
    scene: Scene, requester: Requester, aimed: Mapping[str, Any], is_changed: bool
) -> None:
    """It is asked which key it knows; a version that was made for nothing is used next."""
    old = await scene.version()
    scene.to_ca.aim(KEY_CHANGE, **aimed)
    if is_changed:
        assert await scene.rotate() == old + 1
    else:
        with pytest.raises(process.PeerFailed):
            await scene.rotate()
        key = await scene.key()
        assert key["failures"] >= 1
        assert key["reason"]
    await scene.sound()
    assert await scene.version() == old + int(is_changed)
    await obtain(requester)
    if not is_changed:
        assert await scene.rotate() == old + 1
        assert scene.latest() == old + 1
        assert (await scene.key())["failures"] == 0


async def test_vault_that_is_sealed_in_the_middle(scene: Scene, requester: Requester) -> None:
    """Between the new version and the CA's knowing it: orders wait, and all goes on by itself."""
    old = await scene.version()
    aim = scene.to_vault.aim(SIGN)
    rotating = asyncio.ensure_future(scene.rotate())
    await struck(aim)
    await asyncio.to_thread(scene.vault.seal)
    try:
        with pytest.raises(process.PeerFailed):
            await rotating
        placed = await place(requester, fresh_name())
        assert placed.status == "processing"
    finally:
        await asyncio.to_thread(scene.vault.unseal)
    assert await placed.settled() == "valid"
    await scene.sound()
    assert await scene.version() == old
    assert await scene.rotate() == old + 1


async def test_somebody_else_rotates_the_key_in_vault(scene: Scene, requester: Requester) -> None:
    """The pinned version signs on; the next rotation takes what lies there."""
    old = await scene.version()
    for _ in range(2):
        scene.transit.rotated(NAME)
    await obtain(requester)
    assert await scene.version() == old
    assert await scene.rotate() == old + 2
    await obtain(requester)


async def test_login_that_is_refused_leaves_the_account_as_it_was(
    scene: Scene, requester: Requester
) -> None:
    """The identity that rotates is known by its token alone."""
    old = await scene.version()
    kept = scene.transit.rotate_token
    scene.write_rotate_token("hvs.nobody")
    try:
        with pytest.raises(process.PeerFailed):
            await scene.rotate()
    finally:
        scene.write_rotate_token(kept)
    assert (await scene.version(), scene.latest()) == (old, old)
    assert await scene.faults() == []
    await obtain(requester)


async def test_without_an_identity_that_rotates_nothing_is_begun(
    scene: Scene, requester: Requester
) -> None:
    """The reason names what to configure; what the security team makes is used on command."""
    old, journal = await scene.version(), scene.changes()
    rotate = scene.more["vault"].pop("rotate")
    try:
        await asyncio.to_thread(scene.reconfigure)
        with pytest.raises(process.PeerFailed, match=r"vault\.rotate"):
            await scene.rotate()
        assert scene.changes() == journal
        scene.transit.rotated(NAME)
        (row,) = await scene.ask("upstream_rotate_key", upstream="ca")
        assert version_of(row["key"]) == old + 1
        assert "vault.rotate" in row["not_retired"]
        await obtain(requester)
    finally:
        scene.more["vault"]["rotate"] = rotate
        await asyncio.to_thread(scene.reconfigure)
    await scene.sound()


# -------------------------------------------------------------------------------------- by itself


async def test_key_that_has_grown_old_is_rotated_by_itself(
    scene: Scene, requester: Requester
) -> None:
    """Once, in its turn, and the metrics tell how old it is."""
    old = await scene.version()
    scene.options["account_key"]["rotate_every"] = "1h"
    hour = 3600 * 1_000_000
    try:
        scene.penstock.kill()
        with contextlib.closing(sqlite3.connect(scene.penstock.database)) as database, database:
            database.execute(
                "UPDATE upstream_key_changes SET ended_at = ended_at - ? WHERE status = 'changed'",
                (hour,),
            )
            database.execute(
                "UPDATE upstream_accounts SET registered_at = registered_at - ?", (hour,)
            )
            database.execute("DELETE FROM upstream_key_failures")
        scene.penstock.write()
        await asyncio.to_thread(scene.penstock.start)
        async with asyncio.timeout(SOUND_SECONDS):
            while await scene.version() == old:  # noqa: ASYNC110 - a process cannot be awaited otherwise
                await asyncio.sleep(0.2)
        await scene.sound()
        assert await scene.version() == old + 1
        key = await scene.key()
        assert key["rotates"] > key["since"]
        await obtain(requester)
        series = 'penstock_account_key_rotation_due_timestamp_seconds{community="default",'
        async with asyncio.timeout(SOUND_SECONDS):
            while True:
                page = await asyncio.to_thread(scene.penstock.metrics)
                told = [one.split()[-1] for one in page.splitlines() if one.startswith(series)]
                if told and float(told[0]) > SystemClock().now().timestamp():
                    break
                await asyncio.sleep(0.2)
    finally:
        del scene.options["account_key"]["rotate_every"]
        await asyncio.to_thread(scene.reconfigure)


# --------------------------------------------------------------------------------------- step-ca


async def test_step_ca_offers_none(tmp_path: Path) -> None:
    """It answers 501; the account goes on, and trying again makes no further version."""
    with ExitStack() as stack:
        plain = process.free_port()
        bind = stack.enter_context(Bind(tmp_path / "bind", zones=["example.test"]))
        stepca = stack.enter_context(
            StepCa(tmp_path / "step", validation_http_port=plain, dns_server=bind.address)
        )
        scene = await asyncio.to_thread(Scene, tmp_path, stack, stepca, plain)
        for _ in range(2):
            with pytest.raises(process.PeerFailed, match="501"):
                await scene.rotate()
        assert await scene.version() == 1
        assert scene.latest() == 2
        assert (await scene.key())["failures"] == 2
        assert await scene.faults() == []
        assert scene.signs(1)
