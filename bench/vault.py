"""Account keys in Vault beside account keys in files: what a signature costs, and what an order.

Two brokers stand in front of one CA, one with its account key in a file and one with it in transit,
and are ordered from by turns, so that whatever else the machine does hits both alike.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from bench import servers
from bench.figures import Cell, median_cell, percentile
from bench.generator import Generator
from bench.processes import usage_of
from bench.scenarios import WARM_ORDERS, Tell, line_of, round_of
from bench.servers import Ports, Scene
from broker.clock import SystemClock
from broker.issuance.ports import Signer
from broker.keys.keyfile import KeyFileSigner
from broker.keys.vault import VaultSigner
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings
from tests.deployments.penstock import AcmeCa, Penstock
from tests.deployments.vaulted import Transit, vault_section
from tests.peers import process
from tests.peers.vault import Vault

__all__ = ["EFFORTS", "FILE", "VAULT", "Effort", "Keys", "Signing", "measure"]

FILE: Final = "key file"
VAULT: Final = "key in Vault"

MOUNT: Final = "transit-penstock"
SIGNER: Final = "penstock.bench.signer"
ACCOUNT: Final = "penstock.default.upstream"

INPUT: Final = bytes(1024)
"""What is signed: a signing input of an order measures about a kilobyte."""

Turn = tuple[str, Scene]

_SECONDS: Final = re.compile(r'^penstock_vault_request_seconds_(sum|count)\{.*"ok"\} (\S+)$', re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    signatures: dict[int, int]
    """Signatures by how many are under way at once."""
    orders: dict[int, int]
    """Orders of a round by the number of clients."""
    rounds: int


EFFORTS: Final[Mapping[str, Effort]] = {
    "full": Effort(
        signatures={1: 3_000, 8: 10_000, 32: 10_000}, orders={1: 60, 8: 200, 32: 256}, rounds=5
    ),
    "quick": Effort(
        signatures={1: 1_000, 8: 3_000, 32: 3_000}, orders={1: 40, 8: 120, 32: 192}, rounds=3
    ),
    "smoke": Effort(signatures={1: 20, 8: 40}, orders={1: 4, 8: 16}, rounds=1),
}
"""About four minutes, one minute, and seconds, on two idle cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Signatures by one keeper of keys, so many at once."""

    keeper: str
    concurrency: int
    signatures: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Processor time of the process that signs or has signed, in milliseconds a signature."""
    vault_cpu_ms: float
    connections: int
    """Connections to Vault that were open at the end or closed within the last minute."""


@dataclass(slots=True)
class Keys:
    """All that came out."""

    signing: list[Signing] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    """Orders; the scene says where the account key lies and how names are proved."""
    signing_ms: dict[str, float] = field(default_factory=dict)
    """Time that an order waits for Vault in all, by scene and clients, in milliseconds."""
    signatures: dict[str, float] = field(default_factory=dict)
    """Requests to Vault for an order, by the same."""

    def cell(self, scene: str, concurrency: int) -> Cell | None:
        """Return one cell, None where it was not measured."""
        for cell in self.cells:
            if (cell.scene, cell.concurrency) == (scene, concurrency):
                return cell
        return None


def scene_name(where: str, *, is_granted: bool) -> str:
    """Return what a broker is called that has its key there."""
    return f"{where}, {'granted' if is_granted else 'proved'}"


def place(scene: str, concurrency: int) -> str:
    """Return the key of one cell in tables of figures."""
    return f"{scene}, {concurrency}"


def measure(home: Path, effort: Effort, tell: Tell) -> Keys:
    """Measure signatures, then orders with and without a proof by the client."""
    keys = Keys()
    home.mkdir(parents=True, exist_ok=True)
    with Vault(home / "vault") as vault:
        (home / "tokens").mkdir()
        transit = Transit(vault, home / "tokens", MOUNT, [SIGNER, ACCOUNT])
        _measure_signing(home, transit, effort, keys, tell)
        for is_granted in (True, False):
            _measure_orders(home, transit, effort, keys, tell, is_granted=is_granted)
    return keys


# ------------------------------------------------------------------------------------- signatures


def _measure_signing(home: Path, transit: Transit, effort: Effort, keys: Keys, tell: Tell) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for signing in runner.run(_sign_by_both(home, transit, effort)):
            keys.signing.append(signing)
            tell(
                f"{signing.keeper}, {signing.concurrency} at once: {signing.per_second:.0f} "
                f"signatures a second, p50 {signing.p50_ms:.2f} ms, {signing.cpu_ms:.3f} ms CPU, "
                f"Vault {signing.vault_cpu_ms:.3f} ms, {signing.connections} connections"
            )


async def _sign_by_both(home: Path, transit: Transit, effort: Effort) -> list[Signing]:
    files = KeyFileSigner(home / "keys", b"a passphrase for tests")
    connections = VaultConnections(_settings(home, transit), SystemClock())
    try:
        in_vault = VaultSigner(connections)
        ids = {FILE: "signer", VAULT: f"vault:{MOUNT}/{SIGNER}#1"}
        await files.create_key(ids[FILE], "ec-p256")
        await in_vault.create_key(ids[VAULT], "ec-p256")
        made = []
        signers: Mapping[str, Signer] = {FILE: files, VAULT: in_vault}
        for concurrency, number in effort.signatures.items():
            for keeper, signer in signers.items():
                made.append(await _sign(keeper, signer, ids[keeper], transit, concurrency, number))
        return made
    finally:
        await connections.close()


def _settings(home: Path, transit: Transit) -> VaultSettings:
    serve, rotate = (
        TokenSettings(read_token=token.encode, place="here")
        for token in (transit.serve_token, transit.rotate_token)
    )
    return VaultSettings(
        addresses=(transit.vault.url,),
        ca_bundle=transit.vault.ca_bundle,
        state_dir=home,
        identities={"": Identity(serve=serve, rotate=rotate)},
    )


async def _sign(
    keeper: str, signer: Signer, key_id: str, transit: Transit, concurrency: int, number: int
) -> Signing:
    async def sign() -> None:
        await signer.sign(key_id, INPUT)

    await _timed(sign, min(number, 4 * concurrency), concurrency)
    vault = transit.vault
    cpu, vault_cpu = time.process_time(), usage_of(vault.pid).cpu_seconds
    begun = time.perf_counter()
    times = await _timed(sign, number, concurrency)
    seconds = time.perf_counter() - begun
    cpu, vault_cpu = time.process_time() - cpu, usage_of(vault.pid).cpu_seconds - vault_cpu
    return Signing(
        keeper=keeper,
        concurrency=concurrency,
        signatures=number,
        per_second=number / seconds,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        cpu_ms=1000 * cpu / number,
        vault_cpu_ms=1000 * vault_cpu / number if keeper == VAULT else 0.0,
        connections=_connections_to(vault.port) if keeper == VAULT else 0,
    )


async def _timed(do: Callable[[], Awaitable[None]], number: int, concurrency: int) -> list[float]:
    """Do it so often, by so many at a time, and return how many milliseconds each took."""
    left, times = iter(range(number)), list[float]()

    async def work() -> None:
        for _ in left:
            begun = time.perf_counter()
            await do()
            times.append(1000 * (time.perf_counter() - begun))

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return times


def _connections_to(port: int) -> int:
    """Return how many connections to *port* are open, or were closed by us within a minute."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    remote = f":{port:04X}"
    return sum(1 for line in lines if line.split()[2].endswith(remote))


# ----------------------------------------------------------------------------------------- orders


@contextmanager
def _pair(home: Path, transit: Transit, *, is_granted: bool) -> Iterator[list[Turn]]:
    """Run two brokers in front of one CA, of which the second has its account key in Vault."""
    with ExitStack() as stack:
        ports = Ports.free()
        ca = servers.granting(home / "ca", ports)
        stack.enter_context(ca.penstock)
        turns = []
        for where, store in ((FILE, "file"), (VAULT, transit.store)):
            own = Ports.free()
            directory = home / where.replace(" ", "-")
            directory.mkdir(parents=True)
            upstream = _upstream(ca.penstock, ca.binding, store)
            more = {"vault": vault_section(transit)} if where == VAULT else {}
            front = servers.in_front(directory, own, upstream, is_granted=is_granted, more=more)
            stack.enter_context(front.penstock)
            target = front.target if is_granted else servers.proving(front.penstock)
            name = scene_name(where, is_granted=is_granted)
            behind: dict[str, process.Peer] = {"Penstock as the CA": ca.penstock}
            if where == VAULT:
                behind["Vault"] = transit.vault
            turns.append(
                (
                    where,
                    Scene(
                        name=name, server=front.penstock, target=target, ports=own, behind=behind
                    ),
                )
            )
        yield turns


def _upstream(ca: Penstock, binding: tuple[str, str], store: str) -> AcmeCa:
    return AcmeCa(
        name="upstream",
        directory_url=ca.directory_url,
        ca_bundle=ca.ca_bundle,
        anchors=ca.ca_bundle,
        external_account=binding,
        facts={"honours_not_after": True, "max_lifetime": servers.CA_CAP, "is_ct_logged": False},
        options={"account_key": {"store": store}},
    )


def _measure_orders(
    home: Path,
    transit: Transit,
    effort: Effort,
    keys: Keys,
    tell: Tell,
    *,
    is_granted: bool,
) -> None:
    home = home / ("granted" if is_granted else "proved")
    with ExitStack() as stack:
        turns = stack.enter_context(_pair(home, transit, is_granted=is_granted))
        generators = {
            where: stack.enter_context(scene.generator(home / f"to {where}"))
            for where, scene in turns
        }
        for concurrency, number in effort.orders.items():
            for where, _ in turns:
                generators[where].order(min(number, WARM_ORDERS * concurrency), concurrency)
            for cell in _by_turns(turns, generators, number, concurrency, effort.rounds, keys):
                keys.cells.append(cell)
                tell(line_of(cell))


def _by_turns(
    turns: Sequence[Turn],
    generators: Mapping[str, Generator],
    number: int,
    concurrency: int,
    rounds: int,
    keys: Keys,
) -> list[Cell]:
    """Order from both by turns; note in *keys* how long those of the second waited for Vault."""
    cells: dict[str, list[Cell]] = {where: [] for where, _ in turns}
    waits: list[tuple[float, float]] = []
    for turn in range(rounds):
        # Who goes first changes, so that nobody always has the warmer machine.
        for where, scene in turns if turn % 2 == 0 else reversed(turns):
            before = _asked(scene.server)
            cell = round_of(scene, generators[where], number, concurrency)
            cells[where].append(cell)
            if where == VAULT:
                seconds, answers = (
                    (late - early) / max(cell.orders, 1)
                    for early, late in zip(before, _asked(scene.server), strict=True)
                )
                waits.append((1000 * seconds, answers))
                at = place(scene.name, concurrency)
                keys.signing_ms[at] = statistics.median(wait for wait, _ in waits)
                keys.signatures[at] = statistics.median(count for _, count in waits)
    return [median_cell(cells[where]) for where, _ in turns]


def _asked(server: process.Peer) -> tuple[float, float]:
    """Return for how many seconds a broker has waited for Vault, and for how many answers."""
    assert isinstance(server, Penstock)
    found = {"sum": 0.0, "count": 0.0}
    for which, value in _SECONDS.findall(server.metrics()):
        found[which] += float(value)
    return found["sum"], found["count"]
