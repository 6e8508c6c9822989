"""A CA's authorizations: answered, watched, and cleaned up after."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.protocol.challenges import ChallengeType
from broker.protocol.exchange import Answer, HttpResponse
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.upstreams.authorizing import (
    AUTHORIZATION_TIME,
    OUTAGE_TIME,
    POLL_INTERVAL,
    Authorizer,
    AuthorizingSettings,
)
from broker.upstreams.breaker import Breaker
from broker.upstreams.client import AcmeClient
from tests.fakes.ca_simulator import problem, with_header
from tests.fakes.hostile_ca.script import FOREVER, Behaviour, ChallengeResult, Fault, Resource
from tests.fakes.standing_store import FakeStandingStore
from tests.unit.upstreams.given import FakeSolver, Given, dns, given

NAME = "www.example.com"
NO = Problem(ProblemType.UNAUTHORIZED, "no")
Honest = Callable[[], HttpResponse]


def challenge(**changes: Any) -> dict[str, Any]:
    """Return a dns-01 challenge of the simulated CA."""
    document = {
        "type": "dns-01",
        "url": "https://ca.example/challenge/1",
        "status": "pending",
        "token": "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA",
    } | changes
    return {name: value for name, value in document.items() if value is not None}


def _honest(honest: Honest) -> HttpResponse:
    return honest()


def _outage(_: Honest) -> HttpResponse:
    raise Unreachable("connection reset")


def _settling(known: Given) -> Callable[[Honest], HttpResponse]:
    """Return an answer before which the CA calls its only order valid."""

    def settled(honest: Honest) -> HttpResponse:
        (record,) = known.ca.resources.records.orders.values()
        record.status = record.authorizations[0].status = "valid"
        return honest()

    return settled


class Guarded(Given):
    """A CA that thinks about it, is away from the first wait on, and is left alone meanwhile."""

    def __init__(self) -> None:
        super().__init__(Behaviour(challenge_result=ChallengeResult.PROCESSING))
        self.away: timedelta | None = None
        self.store = FakeStandingStore()
        self.client = AcmeClient(
            directory_url=self.ca.directory_url,
            transport=self.ca,
            signer=self.signer,
            clock=self.clock,
            breaker=Breaker("ca", self.store, self.clock),
        )
        self.upstream = self.started()

    async def pause(self, duration: timedelta) -> None:
        """Let the time pass; the CA is back, and has decided, once it was away for so long."""
        if self.away is not None and not self.waits:
            self.ca.script.faults.append(Fault.outage())
        await super().pause(duration)
        if self.away is not None and sum(self.waits, timedelta()) >= self.away:
            self.ca.script.faults.clear()
            self.ca.intercept(Resource.AUTHORIZATION, _settling(self))


async def test_the_answer_stands_while_the_ca_looks() -> None:
    """Published before the CA is told, withdrawn only when it has decided."""
    known = await given()
    order = await known.opened()
    seen: list[str] = []

    def look(honest: Honest) -> HttpResponse:
        seen.extend(answer.key_authorization for answer in known.solver.published)
        return honest()

    known.ca.intercept(Resource.CHALLENGE, look)
    await known.upstream.authorize(order)
    (answer,) = known.solver.withdrawn
    assert known.accounts.record is not None
    assert seen == [f"{answer.token}.{known.accounts.record.thumbprint}"]
    assert known.solver.published == []


async def test_a_valid_authorization_is_left_alone() -> None:
    """One of two is valid already: only the other is answered."""
    known = await given()
    order = await known.opened("a.example.com", "b.example.com")
    known.ca.resources.records.orders[order.url.rpartition("/")[2]].authorizations[
        0
    ].status = "valid"
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY
    assert [answer.identifier for answer in known.solver.withdrawn] == list(dns("b.example.com"))


async def test_a_settled_challenge_is_not_waited_for() -> None:
    """A CA that looks at once and says so is believed at once."""
    known = await given()
    await known.ready()
    assert known.waits == []


async def test_a_challenge_under_way_is_watched_with_growing_waits() -> None:
    """Each look waits longer, up to ten seconds."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()
    with pytest.raises(Unreachable, match="still pending after 300 s"):
        await known.upstream.authorize(order)
    seconds = [wait.total_seconds() for wait in known.waits]
    assert seconds[:6] == [0.5, 1, 2, 4, 8, 10]
    assert sum(known.waits, timedelta()) == AUTHORIZATION_TIME
    assert known.solver.published == []


async def test_the_cas_own_pace_is_heeded() -> None:
    """Retry-After lengthens the wait, after the challenge and after each look."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()
    known.ca.intercept(Resource.CHALLENGE, lambda honest: with_header(honest(), "Retry-After", "7"))
    known.ca.intercept(
        Resource.AUTHORIZATION, lambda honest: with_header(honest(), "Retry-After", "30"), times=2
    )
    with pytest.raises(Unreachable):
        await known.upstream.authorize(order)
    assert [wait.total_seconds() for wait in known.waits[:3]] == [7, 30, 2]


async def test_a_short_outage_while_watching_is_outlasted() -> None:
    """Beginning anew would only cost more."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()

    for answer in (_honest, _outage, _settling(known)):
        known.ca.intercept(Resource.AUTHORIZATION, answer)
    await known.upstream.authorize(order)
    assert known.ca.asked(Resource.AUTHORIZATION) == 3
    assert known.ca.asked(Resource.CHALLENGE) == 1


async def test_an_outage_that_lasts_means_later() -> None:
    """And the answer does not stay published meanwhile."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()
    known.ca.script.faults.append(Fault(Resource.AUTHORIZATION, skip=1, times=FOREVER, drop=True))
    with pytest.raises(Unreachable, match="connection reset"):
        await known.upstream.authorize(order)
    assert (known.solver.published, len(known.solver.withdrawn)) == ([], 1)
    assert sum(known.waits, timedelta()) == POLL_INTERVAL + OUTAGE_TIME


@pytest.mark.parametrize("seconds", [3, 9, 17])
async def test_ca_that_is_back_is_met_though_it_was_left_alone(seconds: int) -> None:
    """The watch ends behind the time in which nobody was let through."""
    known = Guarded()
    await known.registered()
    order = await known.opened()
    known.away = timedelta(seconds=seconds)
    await known.upstream.authorize(order)
    assert known.ca.asked(Resource.CHALLENGE) == 1


async def test_front_that_answers_is_watched_for_the_whole_round() -> None:
    """503 is an answer, also of a CA that is left alone for it."""
    known = Guarded()
    await known.registered()
    order = await known.opened()
    known.ca.script.faults.append(Fault(Resource.AUTHORIZATION, skip=1, times=FOREVER, status=503))
    with pytest.raises(Unreachable):
        await known.upstream.authorize(order)
    assert known.store.events, "it is not left alone"
    assert sum(known.waits, timedelta()) == AUTHORIZATION_TIME


async def test_outages_with_answers_between_them_are_outlasted() -> None:
    """Each has its own time: only silence ends the watch early."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()
    for _ in range(20):
        for answer in (_honest, _outage):
            known.ca.intercept(Resource.AUTHORIZATION, answer)
    known.ca.intercept(Resource.AUTHORIZATION, _settling(known))
    await known.upstream.authorize(order)
    assert sum(known.waits, timedelta()) > 4 * OUTAGE_TIME
    assert known.ca.asked(Resource.CHALLENGE) == 1


async def test_a_limit_while_watching_is_waited_for() -> None:
    """A CA that names a time has answered, however long that is."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened()

    def limit(_: Honest) -> HttpResponse:
        headers = (("Content-Type", "application/problem+json"), ("Retry-After", "60"))
        body = json.dumps(problem("rateLimited", "too many requests", 429)).encode()
        return HttpResponse(429, headers, body, is_cut=False)

    for answer in (_honest, limit, _settling(known)):
        known.ca.intercept(Resource.AUTHORIZATION, answer)
    await known.upstream.authorize(order)
    assert timedelta(seconds=60) in known.waits
    assert known.ca.asked(Resource.CHALLENGE) == 1


async def test_an_invalid_challenge_is_told_in_the_cas_words() -> None:
    """The problem of the challenge is the reason of the order."""
    known = await given(Behaviour(challenge_result=ChallengeResult.INVALID))
    order = await known.opened()

    known.ca.intercept(Resource.AUTHORIZATION, lambda honest: honest())
    error = problem("dns", "NXDOMAIN looking up TXT", 400)
    known.ca.change(
        Resource.AUTHORIZATION,
        {"status": "invalid", "challenges": [challenge(status="invalid", error=error)]},
    )
    with pytest.raises(Refused) as caught:
        await known.upstream.authorize(order)
    assert caught.value.problem.type is ProblemType.DNS
    assert caught.value.problem.detail == "NXDOMAIN looking up TXT"
    assert known.solver.published == []


@pytest.mark.parametrize("status", ["invalid", "deactivated", "expired", "revoked"])
async def test_an_authorization_that_ended_is_a_refusal(status: str) -> None:
    """With a sentence of ours where the CA gives no reason."""
    known = await given()
    order = await known.opened()
    known.ca.change(Resource.AUTHORIZATION, {"status": status})
    with pytest.raises(Refused, match=f"'{NAME}' is {status}, the CA gave no reason"):
        await known.upstream.authorize(order)
    assert known.solver.withdrawn == []


TOKENS = [
    pytest.param("../../etc/passwd-and-more-characters", id="path"),
    pytest.param('"evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ', id="quote"),
    pytest.param("evaGxfADs6pSRb2LAv9IZf17Dt3\njuxGJ", id="line-break"),
    pytest.param("a" * 21, id="too-short"),
    pytest.param("a" * 257, id="too-long"),
    pytest.param("a" * 10_000, id="ten-kilobytes"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("token", TOKENS)
async def test_a_strange_token_is_never_published(token: str) -> None:
    """It would become a record, a path or a file name."""
    known = await given()
    order = await known.opened()
    known.ca.change(Resource.AUTHORIZATION, {"challenges": [challenge(token=token)]})
    with pytest.raises(Broken, match=r"challenge\.token"):
        await known.upstream.authorize(order)
    assert (known.solver.published, known.solver.withdrawn) == ([], [])
    assert known.ca.asked(Resource.CHALLENGE) == 0


async def test_names_that_we_did_not_order_are_not_proven() -> None:
    """A hostile CA must not choose what we publish."""
    known = await given()
    order = await known.opened()
    other = {"identifier": {"type": "dns", "value": "victim.example.com"}}
    known.ca.change(Resource.AUTHORIZATION, other)
    with pytest.raises(Broken, match=r"'victim\.example\.com' proven, which is no name"):
        await known.upstream.authorize(order)
    assert known.solver.withdrawn == []


async def test_challenges_that_we_do_not_know_are_passed_over() -> None:
    """One without a token stands before the one that is answered."""
    known = await given(Behaviour(challenge_without_token=True))
    assert (await known.ready()).status is OrderStatus.READY


async def test_challenges_of_drafts_disturb_nothing() -> None:
    """Some have no token, some have members of their own; the one that is known is answered."""
    known = await given()
    order = await known.opened()
    (url,) = known.ca.resources.records.orders[order.url.rpartition("/")[2]].authorizations
    (real,) = [one for one in url.challenges if one.kind == "dns-01"][:1]
    persistent = {
        "type": "dns-persist-01",
        "url": "https://ca.example/challenge/persist",
        "status": "pending",
        "issuer-domain-names": ["ca.example"],
        "accounturi": "https://ca.example/acct/1",
    }
    attested = challenge(type="device-attest-01", token=None, url="https://ca.example/challenge/d")
    ours = challenge(url=f"https://ca.example/challenge/{real.id}", token=real.token)
    known.ca.change(Resource.AUTHORIZATION, {"challenges": [persistent, attested, ours]})
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY
    assert [answer.token for answer in known.solver.withdrawn] == [real.token]


async def test_a_failed_challenge_is_not_answered_again() -> None:
    """Another type of the same authorization may still be open."""
    http = FakeSolver(type=ChallengeType.HTTP_01)
    known = await given(solvers=[FakeSolver(), http])
    order = await known.opened()
    record = next(iter(known.ca.resources.records.orders.values()))
    for each in record.authorizations[0].challenges:
        if each.kind == "dns-01":
            each.status = "invalid"
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY
    assert len(http.withdrawn) == 1


async def test_a_challenge_that_was_answered_before_is_not_answered_again() -> None:
    """After a crash the CA is still looking: the answer is published, and only watched."""
    known = await given()
    order = await known.opened()
    processing = {"challenges": [challenge(status="processing")]}
    known.ca.change(Resource.AUTHORIZATION, processing)
    known.ca.change(Resource.AUTHORIZATION, {"status": "valid"})
    known.ca.change(Resource.ORDER, {"status": "ready"})
    await known.upstream.authorize(order)
    assert known.ca.asked(Resource.CHALLENGE) == 0
    assert len(known.solver.withdrawn) == 1


async def test_a_challenge_refused_because_it_is_settled_is_no_refusal() -> None:
    """The authorization decides."""
    known = await given()
    order = await known.opened()
    known.ca.script.faults.append(
        Fault(
            Resource.CHALLENGE,
            processed=True,
            status=400,
            body='{"type":"urn:ietf:params:acme:error:malformed","detail":"not pending"}',
            content_type="application/problem+json",
        )
    )
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY


async def test_a_challenge_refused_while_it_is_open_is_a_refusal() -> None:
    """The CA does not want to look."""
    known = await given()
    order = await known.opened()
    known.ca.script.faults.append(Fault.refusal(Resource.CHALLENGE, 400, "malformed"))
    with pytest.raises(Refused, match="told to refuse"):
        await known.upstream.authorize(order)
    assert known.solver.published == []


# ---------------------------------------------------------------------------------------- solvers


async def test_the_first_solver_that_fits_is_taken() -> None:
    """Order, names and type decide, in this order of the configuration."""
    elsewhere = FakeSolver(names=("other.example.com",))
    first, second = FakeSolver(type=ChallengeType.HTTP_01), FakeSolver()
    known = await given(solvers=[elsewhere, first, second])
    await known.ready()
    assert [len(s.withdrawn) for s in (elsewhere, first, second)] == [0, 1, 0]


async def test_a_wildcard_is_proven_by_dns_alone() -> None:
    """An http-01 solver that comes first is passed over, even if a CA offers it."""
    http, by_dns = FakeSolver(type=ChallengeType.HTTP_01), FakeSolver(names=("*.example.com",))
    known = await given(solvers=[http, by_dns])
    order = await known.opened("*.example.com")
    offered = [challenge(type="http-01"), *await offers(known)]
    known.ca.change(Resource.AUTHORIZATION, {"challenges": offered})
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY
    assert (len(http.withdrawn), len(by_dns.withdrawn)) == (0, 1)
    assert by_dns.withdrawn[0].identifier == dns("example.com")[0]


async def offers(known: Given) -> list[dict[str, Any]]:
    """Return the challenges of the one authorization."""
    record = next(iter(known.ca.resources.records.orders.values()))
    return [
        challenge(type=c.kind, url=f"https://ca.example/challenge/{c.id}", token=c.token)
        for c in record.authorizations[0].challenges
    ]


@pytest.mark.parametrize(
    "solvers",
    [
        pytest.param([], id="none"),
        pytest.param([FakeSolver(names=("other.example.com",))], id="for-other-names"),
        pytest.param([FakeSolver(type=ChallengeType.TLS_ALPN_01)], id="of-another-type"),
    ],
)
async def test_without_a_solver_the_set_up_is_broken(solvers: list[FakeSolver]) -> None:
    """The sentence has the name and what the CA offers; the order does not fail."""
    known = await given(solvers=solvers)
    with pytest.raises(Broken, match=rf"'{NAME}': the CA offers dns-01, http-01"):
        await known.ready()


async def test_a_self_check_that_fails_is_advice() -> None:
    """The CA is told to look all the same."""
    known = await given()
    known.solver.missing = "ns1 lacks it"
    assert (await known.ready()).status is OrderStatus.READY


@pytest.mark.parametrize("outcome", [Unreachable("server is down"), Broken("key is refused")])
async def test_an_answer_that_cannot_be_published_keeps_its_outcome(outcome: Exception) -> None:
    """The CA is not told to look for what is not there."""
    known = await given()
    known.solver.present_failures.append(outcome)
    with pytest.raises(type(outcome), match=str(outcome)):
        await known.ready()
    assert known.ca.asked(Resource.CHALLENGE) == 0


async def test_an_answer_that_cannot_be_withdrawn_fails_no_order() -> None:
    """It is withdrawn at the next occasion."""
    known = await given()
    known.solver.withdraw_failures.append(Unreachable("server is down"))
    assert (await known.ready()).status is OrderStatus.READY
    assert len(known.solver.published) == 1
    await known.ready("other.example.com")
    assert known.solver.published == []
    assert len(known.solver.withdrawn) == 2


# ------------------------------------------------------------------------------------ side by side


async def test_answers_are_published_side_by_side() -> None:
    """A name and its wildcard stand at one place at one time, and more names beside them."""
    known = await given()
    order = await known.opened("example.com", "*.example.com", "www.example.com")
    most = 0

    def look(honest: Honest) -> HttpResponse:
        nonlocal most
        most = max(most, len(known.solver.published))
        return honest()

    known.ca.intercept(Resource.CHALLENGE, look, times=3)
    await known.upstream.authorize(order)
    assert most == 3


async def test_the_first_refusal_ends_the_round() -> None:
    """The others are not waited for, and their answers are withdrawn."""
    known = await given(Behaviour(challenge_result=ChallengeResult.PROCESSING))
    order = await known.opened("a.example.com", "b.example.com")
    began = known.clock.now()
    known.ca.script.faults.append(Fault.refusal(Resource.CHALLENGE, 403, "caa", skip=1))
    with pytest.raises(Refused) as caught:
        await known.upstream.authorize(order)
    assert caught.value.problem.type is ProblemType.CAA
    assert known.solver.published == []
    assert known.clock.now() - began < AUTHORIZATION_TIME


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param([Unreachable("u"), Broken("b"), Refused(NO)], Refused, id="refusal-first"),
        pytest.param([Unreachable("u"), Broken("b"), Unreachable("u")], Broken, id="then-fault"),
        pytest.param([KeyError("k")] * 3, KeyError, id="our-own-bug"),
    ],
)
async def test_of_several_errors_the_gravest_is_told(
    errors: list[Exception], expected: type[Exception]
) -> None:
    """Where several things go wrong at once, the one that decides is told."""
    all_there = asyncio.Barrier(3)

    async def post(url: str, payload: object) -> Answer:
        await all_there.wait()
        raise errors[int(url)]

    known = Given()
    authorizer = Authorizer(AuthorizingSettings(), solvers=[], clock=known.clock, pause=known.pause)
    with pytest.raises(expected):
        await authorizer.authorize(
            ["0", "1", "2"], ordered=dns(NAME), thumbprint="thumbprint", post=post
        )


async def test_a_round_that_is_cancelled_cleans_up() -> None:
    """A broker that stops leaves nothing published."""
    known = await given()
    order = await known.opened()
    known.ca.script.faults.append(Fault.hanging(Resource.CHALLENGE))
    task = asyncio.ensure_future(known.upstream.authorize(order))
    await known.ca.hanging.wait()
    assert len(known.solver.published) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert known.solver.published == []


async def test_a_round_that_is_cancelled_while_publishing_cleans_up() -> None:
    """What is published a moment after the cancellation is withdrawn as well."""
    known = await given()
    known.solver.may_present = asyncio.Event()
    order = await known.opened()
    task = asyncio.ensure_future(known.upstream.authorize(order))
    await known.solver.presenting.wait()
    task.cancel()
    await asyncio.sleep(0)
    known.solver.may_present.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (known.solver.published, len(known.solver.withdrawn)) == ([], 1)
