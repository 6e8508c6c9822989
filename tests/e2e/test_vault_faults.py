"""Vault is sealed, away, slow, or says no, while orders are under way: they wait, and go on.

A real broker, a real Pebble and a real Vault with a proxy before it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.deployments.requester import Placed, Requester
from tests.e2e.vault_scene import VaultScene
from tests.fakes.acme_client import make_csr
from tests.interop.test_renewal import cert_id
from tests.peers import process
from tests.peers.moved_clock import MovedClock

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

NOTICE_SECONDS: Final = 30.0
"""Longest time until a broker that nobody asks for anything tells what is wrong with Vault."""

ATTEMPTS: Final = 3
"""How often Vault is asked in vain before it returns, at least."""

_numbers: Final = itertools.count(1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultScene]:
    """The deployment."""
    with ExitStack() as stack:
        yield VaultScene(tmp_path_factory.mktemp("vf"), stack)


@pytest.fixture
async def requester(scene: VaultScene) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name."""
    made = await scene.requester()
    yield made
    await made.__aexit__(None, None, None)


def fresh_name() -> str:
    """Return a name that no order was for."""
    return f"host-{next(_numbers)}.example.test"


@dataclass(frozen=True)
class Trouble:
    """How Vault gets into trouble, and out of it."""

    begin: Callable[[VaultScene], object]
    end: Callable[[VaultScene], object]
    state: str
    """What is said about it."""


def answer_all(scene: VaultScene, status: int, **headers: str) -> None:
    """Have Vault answer so to everything, logins included."""
    scene.between.stop_aiming()
    body = b'{"errors":["permission denied"]}'
    scene.between.aim(
        "/v1/", status=status, reaches_ca=False, stays=True, body=body, headers=headers
    )


TROUBLES: Final = {
    "sealed": Trouble(
        lambda scene: scene.vault.seal(), lambda scene: scene.vault.unseal(), "sealed"
    ),
    "killed": Trouble(
        lambda scene: scene.vault.kill(), lambda scene: scene.vault.restart(), "unreachable"
    ),
    "slow": Trouble(
        lambda scene: os.kill(scene.vault.pid, signal.SIGSTOP),
        lambda scene: os.kill(scene.vault.pid, signal.SIGCONT),
        "slow",
    ),
    "refusing": Trouble(
        lambda scene: answer_all(scene, 403), lambda scene: scene.between.stop_aiming(), "denied"
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_orders_wait_while_vault_is_away_and_go_on_by_themselves(
    scene: VaultScene, requester: Requester, trouble: Trouble
) -> None:
    """It is noticed before anybody asks; reads go on; each order has one certificate in the end."""
    old = await requester.request(fresh_name())
    assert await old.settled() == "valid"
    names = [fresh_name() for _ in range(3)]
    opened = await requester.order(names[0])
    await asyncio.to_thread(trouble.begin, scene)
    begun = time.time()  # noqa: TID251 - what the broker says is compared with it
    try:
        await see_that_it_is_told(scene, trouble.state, begun)
        csr = make_csr([names[0]])
        placed = [Placed(requester, opened.headers["Location"], csr)]
        placed[0].order = (await requester.finalize(opened.json(), csr)).json()
        placed += [await requester.request(name) for name in names[1:]]
        failed = requests_in_vain(scene)
        await asyncio.to_thread(
            process.wait_until,
            lambda: requests_in_vain(scene) >= failed + ATTEMPTS,
            NOTICE_SECONDS,
            "it was asked again and again",
        )
        if trouble.state == "denied":
            await see_other_refusals(scene)
        assert [(await one.read())["status"] for one in placed] == ["processing"] * 3
        await see_that_reads_go_on(requester, old)
    finally:
        await asyncio.to_thread(trouble.end, scene)
    assert [await one.settled() for one in placed] == ["valid"] * 3
    await see_one_certificate_each(scene, names)
    await until_it_is_well(scene)


def requests_in_vain(scene: VaultScene) -> float:
    """Return how many requests Vault has not answered as it should."""
    name = "penstock_vault_request_seconds_count"
    lines = scene.penstock.metrics().splitlines()
    in_vain = [one for one in lines if one.startswith(name) and 'outcome="ok"' not in one]
    return sum(float(one.rpartition(" ")[2]) for one in in_vain)


def warning_of(state: str) -> Callable[[str], bool]:
    """Return the question whether ``/readyz`` tells of this state."""
    return lambda said: f"[!] vault {state}" in said


async def see_other_refusals(scene: VaultScene) -> None:
    """A Vault that says no in other ways is told of as well."""
    ways: tuple[tuple[int, str, dict[str, str]], ...] = (
        (500, "failing", {}),
        (429, "limited", {"Retry-After": "1"}),
        (307, "redirecting", {"Location": "https://elsewhere.example.test:8200/v1/x"}),
    )
    for status, state, headers in ways:
        answer_all(scene, status, **headers)
        await until_it_says(scene, warning_of(state))


async def see_one_certificate_each(scene: VaultScene, names: Sequence[str]) -> None:
    """Ask the CA how many certificates it made."""
    made = await asyncio.to_thread(lambda: [scene.issued_for(name) for name in names])
    assert made == [1] * len(names)


async def see_that_reads_go_on(requester: Requester, placed: Placed) -> None:
    """What does not need Vault is answered as ever."""
    assert (await placed.read())["status"] == "valid"
    leaf = (await placed.chain())[0]
    info = await requester.get(f"{requester.directory['renewalInfo']}/{cert_id(leaf)}")
    assert info.status == 200
    assert "suggestedWindow" in info.json()


async def see_that_it_is_told(scene: VaultScene, state: str, begun: float) -> None:
    """The broker stays ready, and says which part is down and since when."""
    await until_it_says(scene, lambda said: f"[!] vault {state} for 'default' since 20" in said)
    assert scene.readiness().endswith("ok\n")

    def is_measured() -> bool:
        if scene.metric("up") or not scene.metric("state", f'identity="default",state="{state}"'):
            return False
        since = scene.metric("down_since_timestamp_seconds")
        return begun - 1 <= since <= begun + NOTICE_SECONDS

    # What was answered well before may be heard of only now, and speak for Vault once more.
    await asyncio.to_thread(
        process.wait_until, is_measured, NOTICE_SECONDS, "the metrics tell it, and since when"
    )


async def until_it_says(scene: VaultScene, what: Callable[[str], bool]) -> None:
    """Wait for what ``/readyz`` says of itself."""
    await asyncio.to_thread(
        process.wait_until, lambda: what(scene.readiness()), NOTICE_SECONDS, "readyz says it"
    )


async def until_it_is_well(scene: VaultScene) -> None:
    """Wait until nothing is said about Vault any more."""

    def is_well() -> bool:
        return (
            "[!] vault" not in scene.readiness()
            and scene.metric("up") == 1
            and scene.metric("down_since_timestamp_seconds") == 0
        )

    # What was asked in vain before may end only now, and speak against Vault once more.
    await asyncio.to_thread(
        process.wait_until, is_well, NOTICE_SECONDS, "readyz and the metrics say that it is well"
    )


async def test_token_revoked_in_flight_costs_nobody_anything(
    scene: VaultScene, requester: Requester
) -> None:
    """Orders that are under way run into the 403 and have one new login between them."""
    await until_it_is_well(scene)
    before = scene.metric("logins_total", 'identity="default",outcome="ok"')
    names = [fresh_name() for _ in range(4)]
    placed = [await requester.request(name) for name in names]
    await asyncio.to_thread(scene.revoke_tokens)
    assert [await one.settled() for one in placed] == ["valid"] * 4
    more = await requester.request(fresh_name())
    assert await more.settled() == "valid"
    await see_one_certificate_each(scene, names)
    assert scene.metric("logins_total", 'identity="default",outcome="ok"') == before + 1


async def test_answers_that_are_lost_issue_nothing_twice(
    scene: VaultScene, requester: Requester
) -> None:
    """Vault signs, and the connection is cut: signing again is no second order."""
    names = [fresh_name() for _ in range(3)]
    aim = scene.between.aim("/sign/", is_cut=True, stays=True)
    placed = [await requester.request(name) for name in names]
    await asyncio.to_thread(
        process.wait_until, lambda: aim.count > 3, NOTICE_SECONDS, "it was asked again"
    )
    scene.between.stop_aiming()
    assert [await one.settled() for one in placed] == ["valid"] * 3
    await see_one_certificate_each(scene, names)


async def test_broker_starts_while_vault_is_sealed(scene: VaultScene, requester: Requester) -> None:
    """What needs no Vault is served; an order that waited since before the restart goes on."""
    old = await requester.request(fresh_name())
    assert await old.settled() == "valid"
    await asyncio.to_thread(scene.vault.seal)
    try:
        name = fresh_name()
        waiting = await requester.request(name)
        await asyncio.to_thread(scene.penstock.kill)
        await asyncio.to_thread(scene.penstock.start)
        requester.nonce = None
        await see_that_reads_go_on(requester, old)
        assert (await waiting.read())["status"] == "processing"
        await until_it_says(scene, warning_of("sealed"))
    finally:
        await asyncio.to_thread(scene.vault.unseal)
    assert await waiting.settled() == "valid"
    await see_one_certificate_each(scene, [name])
    await until_it_is_well(scene)


def processes() -> str:
    """Return what everybody sees of all processes, and root of their environment."""
    command = ["ps", "auxwwe"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def core_limit(pid: int) -> list[str]:
    """Return soft and hard limit of a core file's size."""
    lines = Path(f"/proc/{pid}/limits").read_text("ascii").splitlines()
    (line,) = [each for each in lines if each.startswith("Max core file size")]
    return line.split()[4:6]


async def test_no_secret_is_anywhere_but_where_it_belongs(
    scene: VaultScene, requester: Requester, tmp_path: Path
) -> None:
    """After all that: logs, answers, metrics, the state directory, the list of processes."""
    placed = await requester.request(fresh_name())
    assert await placed.settled() == "valid"
    tokens = await asyncio.to_thread(scene.tokens)
    assert tokens, "the audit log tells them"
    marked = scene.marked
    marked.secrets |= {f"token-{number}": token for number, token in enumerate(sorted(tokens))}
    commands = [
        await asyncio.to_thread(scene.penstock.run, *words)
        for words in (("upstream", "check", "ca"), ("upstream", "list", "--json"))
    ]
    places = {
        "log": scene.penstock.log_text(),
        "metrics": scene.penstock.metrics(),
        "readiness": scene.readiness(),
        "answers": requester.told(),
        "commands": "".join(one.stdout + one.stderr for one in commands),
        "processes": await asyncio.to_thread(processes),
    }
    for file in sorted(scene.penstock.state.rglob("*")):
        if file.is_file():
            places[file.name] = file.read_bytes().decode("latin-1")
    assert {"penstock.db", "log", "metrics"} <= set(places)
    found = {place: marked.found_in(text) for place, text in places.items()}
    assert not {place: names for place, names in found.items() if names}
    assert marked.found_in(scene.audit.read_text("utf-8")), "the search finds what is there"


async def test_crash_leaves_no_memory_behind(scene: VaultScene) -> None:
    """A process that dies writes no core: tokens and secrets are in its memory."""
    pid = scene.penstock.pid
    assert core_limit(pid) == ["0", "0"]
    os.kill(pid, signal.SIGABRT)
    await asyncio.to_thread(
        process.wait_until,
        lambda: not process.is_listening(scene.penstock.port),
        NOTICE_SECONDS,
        "the broker is gone",
    )
    assert not list(scene.penstock.directory.glob("core*"))
    await asyncio.to_thread(scene.penstock.stop)
    await asyncio.to_thread(scene.penstock.start)


async def test_clock_of_vault_that_is_ahead_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Leases are distances: tokens of 3 s are renewed and used as ever."""
    home = tmp_path_factory.mktemp("vc")
    clock = MovedClock(home)
    clock.move(-timedelta(minutes=20))
    with ExitStack() as stack:
        scene = VaultScene(home, stack, token_ttl="3s", environment=clock.environment())
        requester = await scene.requester()
        try:
            await asyncio.to_thread(
                process.wait_until,
                lambda: scene.metric("renewals_total", 'identity="default",outcome="ok"') >= 2,
                NOTICE_SECONDS,
                "two renewals",
            )
            placed = await requester.request(fresh_name())
            assert await placed.settled() == "valid"
        finally:
            await requester.__aexit__(None, None, None)
        assert scene.metric("logins_total", 'identity="default",outcome="denied"') == 0
