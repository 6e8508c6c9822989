"""A CA that lies, breaks off, or answers nonsense, behind a real broker.

Whatever it does: nothing wrong is released, somebody is told why, the CA is not pestered, nothing
of it reaches the client, and where the fault passes the order is valid in the end.  What happened
is counted at the CA.  The cases are a table, `tests/deployments/misbehaviours.py`; they are
played side by side, and each test waits for its own.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.issuance.opening import SEEN_TIME
from tests.deployments.hostile import CAP_DAYS, NAME, BehindHostileCas, Lane
from tests.deployments.misbehaviours import CASES, Case, Ending, proven
from tests.deployments.requester import Placed, Requester
from tests.fakes.acme_client import make_csr
from tests.fakes.hostile_ca import Fault, Resource
from tests.fakes.hostile_ca.ledger import Certified, Seen
from tests.peers import authority
from tests.peers.process import PeerFailed

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module")]

WATCHED_SECONDS: Final = 4.0
"""How long an order is watched that ought not to end: three or four tries of the broker."""

MENDED_SECONDS: Final = 90.0
"""Longest wait for an order whose CA was mended: the next try is due within half of that."""

ENDED_SECONDS: Final = 90.0
"""Longest wait for an order that ought to end."""

LOOK_SECONDS: Final = 0.2
"""Pause between two looks at an order that waits."""

SUPERSEDED: Final = 4
"""Reason of a revocation that says nothing bad of the requester (RFC 5280 §5.3.1)."""

LATE_SECONDS: Final = SEEN_TIME.total_seconds() + 1.0
"""Pause once the CA was asked for an order, so that the broker reads that before it finalizes."""

TOLERANCE: Final = datetime.timedelta(seconds=60)
LONGEST_WAIT: Final = datetime.timedelta(hours=24)


@dataclass(kw_only=True)
class Played:
    """What came of one case, as the client, the operator and the CA saw it."""

    placed: Placed
    ended: str
    """Status of the order when it ended, or when it had been watched long enough."""
    error: Mapping[str, Any]
    shown: Mapping[str, Any]
    """What ``order show`` told then."""
    seen: Sequence[Seen]
    """What the CA was asked, until then."""
    orders: int
    finalizes: int
    certificates: Sequence[Certified]
    revocations: Mapping[str, int]
    """Serials that the CA revoked, with their reasons."""
    kept: Mapping[str, bool] = field(default_factory=dict)
    """Fingerprint → whether the broker released it, of those that it kept at all."""
    is_suspended: bool = False
    calls_while_suspended: int = 0
    refusal_while_suspended: Mapping[str, Any] = field(default_factory=dict)
    ended_mended: str = ""
    """Status of the order after the CA was mended, where that was tried."""
    next_ended: str = ""
    """Status of the next order, of the same requester for the same names, at an honest CA."""
    withheld_answer: int | None = None
    """HTTP status with which its own requester is refused a certificate that was withheld."""
    chain: Sequence[x509.Certificate] = ()
    spared: Sequence[Fault] = ()
    """Faults of the script that no request met: of those the case says nothing."""
    leaked: Sequence[str] = ()
    """What only CA and broker may know, and the client was told."""


async def play(deployment: BehindHostileCas, case: Case) -> Played:
    """Let one case happen on a CA of its own."""
    async with deployment.lane() as lane:
        requester = await deployment.requester()
        names = [name.replace(NAME, f"{case.id}.example.test") for name in case.names]
        deployment.script(lane, case.script, names[0])
        before, faults = Marks.of(lane), list(lane.ca.script.faults)
        opened = lane.ca.ledger.count(Resource.NEW_ORDER)

        async def be_late() -> None:
            await lane.ca.seen(Resource.NEW_ORDER, opened + 1)
            await asyncio.sleep(LATE_SECONDS)

        placed = await requester.request(
            *names,
            profile=lane.name,
            before_finalize=be_late if case.is_late else None,
            **case.members(),
        )
        seconds = WATCHED_SECONDS if case.ending is Ending.WAITING else ENDED_SECONDS
        ended = await placed.settled(seconds)
        if case.ending is Ending.WAITING:
            ended = await watched(deployment, lane, placed, faults, case.says)
        played = await observe(deployment, lane, placed, before, ended)
        played.spared = unstruck(lane, faults)
        if case.ending is Ending.WAITING and case.is_mended:
            lane.mend()
            played.ended_mended = await placed.settled(MENDED_SECONDS)
        if placed.status == "valid":
            played.chain = await placed.chain()
            played.certificates = before.certificates(lane)
        await suspension(deployment, lane, requester, names, played)
        if case.is_mended:
            lane.mend()
            following = await requester.request(*names, profile=lane.name)
            played.next_ended = await following.settled(MENDED_SECONDS)
            beside = following.order["certificate"].rpartition("/")[0]
            for event in played.shown["events"]:
                if event["kind"] == "certificate-withheld":
                    withheld = f"{beside}/{event['data']['certificate_id']}"
                    played.withheld_answer = (await requester.post(withheld)).status
        told = requester.told()
        played.leaked = sorted(secret for secret in lane.secrets() if secret in told)
        return played


async def watched(
    deployment: BehindHostileCas, lane: Lane, placed: Placed, faults: Sequence[Fault], says: str
) -> str:
    """Watch an order on until each of *faults* was met and the operator reads why it waits.

    A busy machine may need longer for that than orders are watched for; returns the status.
    """
    deadline = time.monotonic() + ENDED_SECONDS
    while time.monotonic() < deadline and placed.status == "processing":
        shown = await deployment.operator.ask("order_show", order_id=placed.order_id)
        why = (shown["waiting"] or {}).get("for") or ""
        if re.search(says, why) and not unstruck(lane, faults):
            break
        await placed.settled(LOOK_SECONDS)
    return placed.status


def unstruck(lane: Lane, faults: Sequence[Fault]) -> Sequence[Fault]:
    """Return those of *faults* that are as they were, but for requests that they let pass."""
    left = [replace(fault, skip=0) for fault in lane.ca.script.faults]
    return [fault for fault in faults if replace(fault, skip=0) in left]


@dataclass(frozen=True)
class Marks:
    """How much a CA had done before a case."""

    seen: int
    orders: int
    finalizes: int
    issued: int
    revoked: int

    @classmethod
    def of(cls, lane: Lane) -> Marks:
        """Return what the ledger of *lane* holds now."""
        ledger = lane.ca.ledger
        return cls(
            len(ledger.requests),
            len(ledger.orders),
            len(ledger.finalizes),
            len(ledger.certificates),
            len(ledger.revocations),
        )

    def certificates(self, lane: Lane) -> Sequence[Certified]:
        """Return what was issued since."""
        return lane.ca.ledger.certificates[self.issued :]


async def observe(
    deployment: BehindHostileCas, lane: Lane, placed: Placed, before: Marks, ended: str
) -> Played:
    """Write down what client, operator and CA know of the order now."""
    ledger = lane.ca.ledger
    certificates = before.certificates(lane)
    if ended == "invalid" and await is_withheld(deployment, placed):
        revokes = sum(one.resource is Resource.REVOKE for one in ledger.requests[: before.seen])
        await lane.ca.seen(Resource.REVOKE, revokes + 1)
    played = Played(
        placed=placed,
        ended=ended,
        error=placed.order.get("error", {}),
        shown=await deployment.operator.ask("order_show", order_id=placed.order_id),
        seen=list(ledger.requests[before.seen :]),
        orders=len(ledger.orders) - before.orders,
        finalizes=len(ledger.finalizes) - before.finalizes,
        certificates=certificates,
        revocations={one.serial_hex: one.reason for one in ledger.revocations[before.revoked :]},
    )
    kept: dict[str, bool] = {}
    for issued in certificates:
        try:
            shown = await deployment.operator.ask("cert_show", certificate=issued.fingerprint)
        except PeerFailed:
            continue
        kept[issued.fingerprint] = shown["released"]
    played.kept = kept
    return played


async def is_withheld(deployment: BehindHostileCas, placed: Placed) -> bool:
    """Say whether the broker keeps back a certificate of this order."""
    shown = await deployment.operator.ask("order_show", order_id=placed.order_id)
    return any(event["kind"] == "certificate-withheld" for event in shown["events"])


async def suspension(
    deployment: BehindHostileCas,
    lane: Lane,
    requester: Requester,
    names: Sequence[str],
    played: Played,
) -> None:
    """See whether the upstream is suspended, what that does to an order, and lift it."""
    status = await deployment.operator.ask("status")
    played.is_suspended = any(one["upstream"] == lane.name for one in status["suspensions"])
    if not played.is_suspended:
        return
    asked = len(lane.ca.ledger.requests)
    answer = await requester.order(*names, profile=lane.name)
    played.refusal_while_suspended = {"http": answer.status, **answer.json()}
    played.calls_while_suspended = len(lane.ca.ledger.requests) - asked
    await deployment.operator.ask("upstream_resume", upstream=lane.name, reason="the case is over")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[BehindHostileCas]:
    """One broker in front of hostile CAs."""
    async with BehindHostileCas(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plays(
    deployment: BehindHostileCas, request: pytest.FixtureRequest
) -> AsyncIterator[Mapping[str, asyncio.Task[Played]]]:
    """Every case that is asked for, under way."""
    wanted = {item.callspec.params["case"].id for item in siblings(request)}
    tasks = {
        case.id: asyncio.create_task(play(deployment, case), name=case.id)
        for case in CASES
        if case.id in wanted
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


def siblings(request: pytest.FixtureRequest) -> list[Any]:
    """Return the tests of this module that are run and have a case."""
    return [
        item
        for item in request.session.items
        if item.path == request.path and "case" in getattr(item, "callspec", NoCase).params
    ]


class NoCase:
    """Stands in for the parameters of a test that has none."""

    params: Mapping[str, Any] = {}


def those(*endings: Ending) -> pytest.MarkDecorator:
    """Return the parametrisation by all cases with one of these endings."""
    cases = [case for case in CASES if case.ending in endings]
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


async def test_there_are_enough_cases() -> None:
    """The table has not shrunk, each of its cases is there once, and each ending has some."""
    ids = [case.id for case in CASES]
    assert len(ids) >= 120
    assert len(set(ids)) == len(ids)
    counts = {ending: sum(case.ending is ending for case in CASES) for ending in Ending}
    assert counts[Ending.WITHHELD] >= 20
    assert counts[Ending.REFUSED] >= 18
    assert counts[Ending.WAITING] >= 45
    assert counts[Ending.VALID] >= 45


# ------------------------------------------------------------------------------ whatever it does


def check_discreet(played: Played, deployment: BehindHostileCas) -> None:
    """See that the client learned nothing of the CA, and that nobody went where it pointed."""
    assert not played.leaked
    assert deployment.stranger.visits == 0
    assert str(deployment.stranger.port) not in str(played.error)


def check_bounded(played: Played, case: Case) -> None:
    """See that the CA was not pestered, and no order finalized twice."""
    assert len(played.seen) <= case.most_calls, [str(one.resource) for one in played.seen]
    assert played.orders <= case.most_orders
    assert not played.spared
    assert played.finalizes <= 1
    assert len(played.certificates) <= 1


def check_nothing_released(played: Played) -> None:
    """See that no certificate of this order can be had."""
    assert "certificate" not in played.placed.order
    assert played.shown["certificate"] is None
    assert not any(played.kept.values())


def check_released(played: Played) -> None:
    """See that what was released is what was asked for, and comes from this order at the CA."""
    leaf, *issuers = played.chain
    csr = played.placed.csr
    assert leaf.public_key() == csr.public_key()
    san = x509.SubjectAlternativeName
    assert set(leaf.extensions.get_extension_for_class(san).value) == set(
        csr.extensions.get_extension_for_class(san).value
    )
    cap = datetime.timedelta(days=CAP_DAYS)
    assert leaf.not_valid_after_utc <= authority.real_now() + cap + TOLERANCE
    leaf.verify_directly_issued_by(issuers[0])
    fingerprints = {issued.fingerprint for issued in played.certificates}
    assert fingerprints == {leaf.fingerprint(hashes.SHA256()).hex()}


@those(Ending.VALID)
async def test_fault_passes_and_the_order_is_valid(
    case: Case, plays: Mapping[str, asyncio.Task[Played]], deployment: BehindHostileCas
) -> None:
    """What goes wrong for a moment delays an order, and issues nothing twice."""
    played = await plays[case.id]
    assert played.ended == "valid", played.shown["waiting"]
    check_discreet(played, deployment)
    check_bounded(played, case)
    check_released(played)
    assert not played.is_suspended
    assert played.next_ended == "valid"


@those(Ending.WITHHELD)
async def test_wrong_certificate_is_withheld_and_revoked(
    case: Case, plays: Mapping[str, asyncio.Task[Played]], deployment: BehindHostileCas
) -> None:
    """A certificate that breaks a rule reaches nobody; a person has to resume its upstream."""
    played = await plays[case.id]
    assert played.ended == "invalid"
    check_discreet(played, deployment)
    check_bounded(played, case)
    check_nothing_released(played)
    assert played.error["type"].rpartition(":")[2] == case.problem
    assert re.search(case.says, played.error["detail"])
    assert played.shown["lever"] == "verify"
    (issued,) = played.certificates
    assert played.revocations == {issued.serial_hex: SUPERSEDED}
    assert played.withheld_answer == 404
    assert played.is_suspended
    assert played.refusal_while_suspended["http"] == 403
    assert "is suspended until" in played.refusal_while_suspended["detail"]
    assert played.calls_while_suspended == 0
    assert played.next_ended == "valid"


@those(Ending.REFUSED)
async def test_refusal_ends_the_order_and_says_why(
    case: Case, plays: Mapping[str, asyncio.Task[Played]], deployment: BehindHostileCas
) -> None:
    """A CA's no, or a chain that is none, makes the order invalid with a reason to read."""
    played = await plays[case.id]
    assert played.ended == "invalid", played.shown["waiting"]
    check_discreet(played, deployment)
    check_bounded(played, case)
    check_nothing_released(played)
    assert played.error["type"].rpartition(":")[2] == case.problem
    assert re.search(case.says, played.error["detail"])
    assert not played.is_suspended
    assert played.next_ended == "valid"


@those(Ending.WAITING)
async def test_lasting_fault_leaves_the_order_processing(
    case: Case, plays: Mapping[str, asyncio.Task[Played]], deployment: BehindHostileCas
) -> None:
    """While a CA cannot be used the order waits, `order show` tells for what, and it then ends."""
    played = await plays[case.id]
    assert played.ended == "processing", played.error
    check_discreet(played, deployment)
    check_bounded(played, case)
    assert "certificate" not in played.shown or played.shown["certificate"] is None
    assert not any(played.kept.values())
    waiting = played.shown["waiting"]
    assert waiting is not None
    assert re.search(case.says, waiting["for"] or "")
    due = datetime.datetime.fromisoformat(waiting["next"])
    assert due <= authority.real_now() + LONGEST_WAIT
    if case.is_mended:
        assert played.ended_mended == "valid"
        check_released(played)
        assert played.next_ended == "valid"


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.quiet_after is not None],
    ids=[case.id for case in CASES if case.quiet_after is not None],
)
async def test_ca_is_left_alone_as_long_as_it_asked(
    case: Case, plays: Mapping[str, asyncio.Task[Played]]
) -> None:
    """After 429 and 503 nothing at all is sent before the time that was named, or a sane one."""
    played = await plays[case.id]
    resources = [one.resource for one in played.seen]
    assert case.quiet_after is not None
    refused, *later = played.seen[resources.index(case.quiet_after) :]
    assert later
    assert min(one.at_seconds for one in later) - refused.at_seconds >= case.quiet_seconds


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.id.startswith("token-")],
    ids=[case.id for case in CASES if case.id.startswith("token-")],
)
async def test_bad_token_is_never_published(
    case: Case,
    plays: Mapping[str, asyncio.Task[Played]],
    deployment: BehindHostileCas,
    tmp_path: Any,
) -> None:
    """A token that is none names no file and no page: the plain listener knows nothing of it."""
    await plays[case.id]
    token = str(case.script.standing.token)
    base = f"http://127.0.0.1:{deployment.penstock.plain_port}/.well-known/acme-challenge/"
    async with aiohttp.ClientSession() as session:
        for path in (token, token.replace("/", "%2F")):
            shown = base + path.replace("\r\n", "%0D%0A").replace('"', "%22")
            async with session.get(shown[:8000]) as answer:
                assert answer.status in (400, 404)


async def test_same_certificate_again_is_withheld_and_stays_valid(
    deployment: BehindHostileCas,
) -> None:
    """A CA that hands out an old certificate delivers nothing, and its owner loses nothing."""
    async with deployment.lane() as lane:
        requester = await deployment.requester()
        name, key = "again.example.test", ec.generate_private_key(ec.SECP256R1())
        deployment.script(lane, proven(), name)
        first = await requester.request(name, profile=lane.name, csr=make_csr([name], key))
        assert await first.settled() == "valid"
        revoked = len(lane.ca.ledger.revocations)

        deployment.script(lane, proven(same_certificate=True), name)
        again = await requester.request(name, profile=lane.name, csr=make_csr([name], key))
        assert await again.settled() == "invalid"
        assert "was received once before" in again.order["error"]["detail"]
        assert "certificate" not in again.order
        shown = await deployment.operator.ask("order_show", order_id=again.order_id)
        assert shown["lever"] == "verify"
        leaf = (await first.chain())[0]
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        kept = await deployment.operator.ask("cert_show", certificate=fingerprint)
        assert (kept["released"], kept["revoked"]) == (True, None)
        assert len(lane.ca.ledger.revocations) == revoked
        await deployment.operator.ask("upstream_resume", upstream=lane.name)

        lane.mend()
        third = await requester.request(name, profile=lane.name, csr=make_csr([name], key))
        assert await third.settled() == "valid"
        assert (await third.chain())[0] != leaf
