"""Stock clients through Penstock at each CA: each pair once; with ``--every-verb`` everything."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.deployments.cas import (
    OWN_ZONE,
    BehindBuiltIn,
    BehindPebble,
    BehindStepCa,
    BehindVault,
    Deployment,
)
from tests.interop.matrix import CLIENTS, Ground, Outcome, Part, Play, Row
from tests.interop.report import write_report
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.stock import CHALLENGES, Verb

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module")]

CAS: Final[Mapping[str, Callable[..., Deployment]]] = {
    "Pebble": BehindPebble,
    "step-ca": BehindStepCa,
    "built-in": BehindBuiltIn,
    "Vault PKI": BehindVault,
}

ABREAST: Final = 3
"""Clients that run at a time: two keep two processors busy, and each waits for its CA as well."""

POLICY: Final = {
    "names": {"allow": [f"**.{OWN_ZONE}", "127.0.0.1", "::1"], "wildcards": True},
    "challenges": list(CHALLENGES),
}

VALIDATION: Final = {"networks": {"allow": ["127.0.0.0/8", "::1/128"]}}

Case = tuple[str, str, Part]


def every_case() -> list[Case]:
    """Return all that can be played: CA, client, part."""
    return [(ca, client, part) for ca in CAS for client in CLIENTS for part in Part]


def cheap_cases() -> list[Case]:
    """Return each pair once, with the challenges taking turns."""
    cases = []
    for i, ca in enumerate(one for one in CAS if one != "Vault PKI"):
        for j, (client, kind) in enumerate(CLIENTS.items()):
            challenges = kind.challenges()
            cases.append((ca, client, Part(challenges[(i + j) % len(challenges)])))
    return cases


def verbs_of(case: Case, *, is_whole: bool) -> list[Verb] | None:
    """Return what is played of a case: all of it, or less so that each pair costs little."""
    ca, client, _ = case
    is_renewed = (list(CAS).index(ca) + list(CLIENTS).index(client)) % 3 == 0
    some = [Verb.OBTAIN, *([Verb.RENEW] if is_renewed else []), Verb.REVOKE]
    return None if is_whole else some


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case that this run plays."""
    if "case" in metafunc.fixturenames:
        is_whole = bool(metafunc.config.getoption("--every-verb", default=False))
        cases = every_case() if is_whole else cheap_cases()
        ids = [f"{ca}-{client}-{part}".replace(" ", "-") for ca, client, part in cases]
        values = [(ca, (ca, client, part)) for ca, client, part in cases]
        metafunc.parametrize(
            ("ground", "case"), values, ids=ids, indirect=["ground"], scope="module"
        )


@pytest.fixture(scope="session")
def rows(pytestconfig: pytest.Config) -> Iterator[list[Row]]:
    """Collect what every case came to, and write the report where one is wanted."""
    collected: list[Row] = []
    yield collected
    wanted = pytestconfig.getoption("--interop-report", default=None)
    if wanted is not None:
        write_report(Path(wanted), collected)


@contextlib.asynccontextmanager
async def forwarding(address: str, port: int) -> AsyncIterator[None]:
    """Hand on what comes to *address*: Penstock's plain listener has one address of its own."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(serve, address, port):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name_server: Bind,
) -> AsyncIterator[Ground]:
    """A Penstock in front of one CA."""
    tmp, tls_port = tmp_path_factory.mktemp("matrix"), process.free_port()
    options = {"policy": POLICY, "validation": {**VALIDATION, "tls_alpn_port": tls_port}}
    with ExitStack() as stack:
        deployment = CAS[request.param](tmp, stack, name_server, options)
        deployment.tls_port = tls_port
        async with forwarding("::1", deployment.penstock.plain_port):
            yield Ground(ca=request.param, deployment=deployment, name_server=name_server, tmp=tmp)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plays(
    request: pytest.FixtureRequest, ground: Ground, rows: list[Row]
) -> AsyncIterator[Mapping[Case, asyncio.Task[list[Row]]]]:
    """Every case at this CA that is asked for, under way."""
    gate = asyncio.Semaphore(ABREAST)
    is_whole = bool(request.config.getoption("--every-verb", default=False))

    async def play(case: Case) -> list[Row]:
        _, client, part = case
        async with gate:
            return await Play(ground, CLIENTS[client], part).run(verbs_of(case, is_whole=is_whole))

    wanted = [case for case in collected(request) if case[0] == ground.ca]
    tasks = {case: asyncio.create_task(play(case), name="-".join(case)) for case in wanted}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    rows.extend(ground.rows)


def collected(request: pytest.FixtureRequest) -> list[Case]:
    """Return the cases of this run, in their order."""
    here = [item for item in request.session.items if item.path == request.path]
    given = [getattr(item, "callspec", NoCase).params for item in here]
    return [params["case"] for params in given if "case" in params]


class NoCase:
    """Stands in for the parameters of a test that has none."""

    params: Mapping[str, Any] = {}


async def test_client_does_what_it_offers(
    case: Case, plays: Mapping[Case, asyncio.Task[list[Row]]]
) -> None:
    """Each verb that client and CA offer works through Penstock, the CA's records agreeing."""
    played = await plays[case]
    failed = [dataclasses.asdict(row) for row in played if row.outcome is Outcome.FAILED]
    assert not failed, "\n".join(f"{row['verb']}: {row['note']}" for row in failed)
    assert played
