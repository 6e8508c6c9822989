"""One CA, spoken to: nonces, directory, and what each kind of answer becomes."""

import asyncio
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.protocol.exchange import HttpResponse
from broker.upstreams.breaker import FAILURES, FIRST_PAUSE, Breaker
from broker.upstreams.budget import Budget
from broker.upstreams.client import DIRECTORY_MAX_AGE, AccountKey, AcmeClient
from tests.fakes.ca_simulator import CaSimulator
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_ca.script import FOREVER, Fault, Resource
from tests.fakes.signer import FakeSigner
from tests.fakes.standing_store import FakeStandingStore
from tests.unit.upstreams.given import KEY_ID, Given, given


async def account(known: Given) -> AccountKey:
    """Return the key of our account."""
    assert known.accounts.record is not None
    key = await known.client.account_key(KEY_ID)
    return key.speaking_for(known.accounts.record.account_url)


async def read(known: Given) -> object:
    """Read our account: the simplest signed request there is."""
    key = await account(known)
    assert key.account_url is not None
    return (await known.client.post(key.account_url, None, key=key)).json()["status"]


async def test_nonces_are_kept_for_the_next_request() -> None:
    """After the first, every answer brings the nonce of the next request."""
    known = await given()
    for _ in range(5):
        assert await read(known) == "valid"
    assert known.ca.asked(Resource.NEW_NONCE) == 1


async def test_requests_at_once_use_different_nonces() -> None:
    """A nonce is spent once, however many ask."""
    known = await given()
    assert await asyncio.gather(*(read(known) for _ in range(8))) == ["valid"] * 8


async def test_refused_nonces_are_replaced() -> None:
    """Four refusals in a row cost time, and nothing else."""
    known = await given()
    known.ca.script.faults.append(Fault.bad_nonce(times=4))
    assert await read(known) == "valid"


async def test_nonces_refused_for_ever_mean_later() -> None:
    """The bound holds, and afterwards all goes on."""
    known = await given()
    known.ca.script.faults.append(Fault.bad_nonce(times=FOREVER))
    before = known.ca.asked(Resource.ACCOUNT)
    with pytest.raises(Unreachable, match="5 nonces"):
        await read(known)
    assert known.ca.asked(Resource.ACCOUNT) - before == 5
    known.ca.script.faults.clear()
    assert await read(known) == "valid"


async def test_the_directory_is_fetched_once_an_hour() -> None:
    """It is shared by all who ask, and renewed when it is old."""
    known = await given()
    await asyncio.gather(*(known.client.directory() for _ in range(8)))
    assert known.ca.asked(Resource.DIRECTORY) == 1
    known.clock.advance(DIRECTORY_MAX_AGE)
    await read(known)
    assert known.ca.asked(Resource.DIRECTORY) == 2


async def test_a_broken_answer_makes_the_directory_doubtful() -> None:
    """A CA that moved its resources is found again."""
    known = await given()
    known.ca.script.faults.append(Fault(Resource.ACCOUNT, status=418, body="gone"))
    with pytest.raises(Broken, match="without a problem document"):
        await read(known)
    assert await read(known) == "valid"
    assert known.ca.asked(Resource.DIRECTORY) == 2


async def test_the_algorithm_follows_the_key() -> None:
    """Each kind of account key is accepted by a CA that verifies."""
    for kind in ("ec-p256", "ec-p384", "rsa-2048"):
        known = Given()
        await known.signer.create_key(KEY_ID, kind)
        key = await known.client.account_key(KEY_ID)
        directory = await known.client.directory()
        answer = await known.client.post(directory.new_account, {}, key=key)
        assert answer.status == 201, kind


OUTCOMES = [
    pytest.param(Fault.refusal(Resource.ACCOUNT, 403, "rejectedIdentifier"), Refused, id="refused"),
    pytest.param(Fault.refusal(Resource.ACCOUNT, 500, "serverInternal"), Unreachable, id="500"),
    pytest.param(Fault.refusal(Resource.ACCOUNT, 429, "rateLimited"), Unreachable, id="429"),
    pytest.param(Fault.lost(Resource.ACCOUNT), Unreachable, id="connection-lost"),
    pytest.param(
        Fault.redirect(Resource.ACCOUNT, "https://ca.example/account/x"), Broken, id="redirect"
    ),
    pytest.param(Fault(Resource.ACCOUNT, status=400, body="<html>"), Broken, id="html"),
]


@pytest.mark.parametrize(("fault", "outcome"), OUTCOMES)
async def test_each_answer_has_its_outcome(fault: Fault, outcome: type[Exception]) -> None:
    """No exception of the protocol's or of a library leaves the client."""
    known = await given()
    known.ca.script.faults.append(fault)
    with pytest.raises(outcome):
        await read(known)


@pytest.mark.parametrize(
    ("fault", "is_fault"),
    [
        pytest.param(Fault.refusal(Resource.ACCOUNT, 500, "serverInternal"), True, id="500"),
        pytest.param(Fault.refusal(Resource.ACCOUNT, 503, "serverInternal"), False, id="503"),
        pytest.param(Fault.refusal(Resource.ACCOUNT, 502, "serverInternal"), False, id="502"),
        pytest.param(Fault.lost(Resource.ACCOUNT), False, id="connection-lost"),
    ],
)
async def test_ca_with_a_fault_is_told_from_one_that_is_away(fault: Fault, is_fault: bool) -> None:
    """What it answers of this very request may be the request's doing."""
    known = await given()
    known.ca.script.faults.append(fault)
    with pytest.raises(Unreachable) as caught:
        await read(known)
    assert caught.value.is_fault is is_fault


async def test_after_503_with_a_time_nothing_is_sent_before_it() -> None:
    """Neither for this account nor for the directory; at the time all goes on."""
    known = await given()
    fault = Fault.refusal(Resource.ACCOUNT, 503, "serverInternal", retry_after="3600")
    known.ca.script.faults.append(fault)
    with pytest.raises(Unreachable) as first:
        await read(known)
    assert first.value.retry_at == known.clock.now() + timedelta(hours=1)
    sent = len(known.ca.requests)
    known.clock.advance(timedelta(seconds=3599))
    with pytest.raises(Unreachable, match="held back") as second:
        await read(known)
    assert second.value.retry_at == first.value.retry_at
    assert len(known.ca.requests) == sent
    known.clock.advance(timedelta(seconds=1))
    assert await read(known) == "valid"


async def test_after_429_with_a_short_time_the_account_waits() -> None:
    """A date is heeded like seconds."""
    known = await given()
    date = (known.clock.now() + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    fault = Fault.refusal(Resource.ACCOUNT, 429, "rateLimited", retry_after=date)
    known.ca.script.faults.append(fault)
    for _ in range(3):
        with pytest.raises(Unreachable) as caught:
            await read(known)
        assert caught.value.retry_at == known.clock.now() + timedelta(seconds=90)
    assert sum("/account/" in request.url for request in known.ca.requests) == 2
    known.clock.advance(timedelta(seconds=90))
    assert await read(known) == "valid"


async def test_429_without_a_time_holds_as_well() -> None:
    """We choose a time where the CA names none."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.ACCOUNT, 429, "rateLimited"))
    with pytest.raises(Unreachable) as caught:
        await read(known)
    assert caught.value.retry_at is not None
    with pytest.raises(Unreachable, match="held back"):
        await read(known)
    known.clock.advance(caught.value.retry_at - known.clock.now())
    assert await read(known) == "valid"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param(Fault(Resource.DIRECTORY, status=503, body=""), Unreachable, id="down"),
        pytest.param(Fault.lost(Resource.DIRECTORY), Unreachable, id="lost"),
        pytest.param(Fault.refusal(Resource.DIRECTORY, 403, "unauthorized"), Broken, id="refused"),
        pytest.param(Fault.garbage(Resource.DIRECTORY, "<html>"), Broken, id="html"),
        pytest.param(Fault(Resource.NEW_NONCE, status=503, body=""), Unreachable, id="no-nonce"),
    ],
)
async def test_a_directory_that_fails_refuses_no_order(
    fault: Fault, outcome: type[Exception]
) -> None:
    """What is wrong with the CA as a whole is never a refusal of an order."""
    known = Given()
    await known.signer.create_key(KEY_ID, "ec-p256")
    known.ca.script.faults.append(fault)
    key = await known.client.account_key(KEY_ID)

    async def try_it() -> int:
        directory = await known.client.directory()
        return (await known.client.post(directory.new_account, {}, key=key)).status

    with pytest.raises(outcome):
        await try_it()
    known.clock.advance(timedelta(minutes=5))
    assert await try_it() == 201


async def test_a_directory_that_leads_elsewhere_is_not_followed() -> None:
    """Nothing is sent to the other place, not even for a nonce."""
    known = Given()
    known.ca.script.directory_overrides["newNonce"] = "https://evil.example/nonce"
    with pytest.raises(Broken, match=r"directory\.newNonce.*another origin"):
        await known.client.directory()
    assert len(known.ca.requests) == 1


async def test_an_answer_larger_than_its_limit_is_broken() -> None:
    """Ten megabytes are not read to see what they are."""
    known = await given()
    huge = HttpResponse(200, (("Content-Type", "application/json"),), b" " * 10_000_000)
    known.ca.intercept(Resource.ACCOUNT, lambda _: huge)
    with pytest.raises(Broken, match="more than 65536 bytes"):
        await read(known)


async def test_a_key_that_is_not_there_is_broken() -> None:
    """The signer's own outcome comes through."""
    with pytest.raises(Broken, match="no key"):
        await Given().client.account_key("nobody")


async def test_a_signer_that_is_away_means_later() -> None:
    """Nothing was sent, and nothing is lost."""
    known = await given()
    known.signer.is_away = True
    with pytest.raises(Unreachable):
        await read(known)
    known.signer.is_away = False
    assert await read(known) == "valid"


def test_a_directory_without_tls_is_refused_before_anything_is_sent() -> None:
    """The configuration's fault is told at once."""
    ca = CaSimulator()
    with pytest.raises(Broken, match="https"):
        AcmeClient(
            directory_url="http://ca.example/directory",
            transport=ca,
            signer=FakeSigner(),
            clock=FakeClock(),
        )
    assert ca.requests == []


def guarded(known: Given, store: FakeStandingStore) -> AcmeClient:
    """Return the client of a process that leaves a CA alone which does not answer."""
    return AcmeClient(
        directory_url=known.ca.directory_url,
        transport=known.ca,
        signer=known.signer,
        clock=known.clock,
        budget=Budget(known.clock, upstream="ca", store=store),
        breaker=Breaker("ca", store, known.clock),
    )


async def test_ca_that_fails_is_left_alone_and_looked_at() -> None:
    """Nothing is sent while it is; one request looks, and then all goes on."""
    known, store = await given(), FakeStandingStore()
    known.client = guarded(known, store)
    assert await read(known) == "valid"
    known.ca.script.faults.append(Fault.outage())
    for _ in range(FAILURES):
        known.clock.advance(timedelta(seconds=1))
        with pytest.raises(Unreachable):
            await read(known)
    before = known.ca.asked(Resource.ACCOUNT)
    for _ in range(5):
        with pytest.raises(Unreachable, match="left alone") as caught:
            await read(known)
        assert caught.value.left_nothing
    assert known.ca.asked(Resource.ACCOUNT) == before
    await known.client.look()
    assert list(store.open), "it was not time to look"
    known.clock.advance(FIRST_PAUSE)
    await known.client.look()
    assert list(store.open), "it is still away"
    known.ca.script.faults.clear()
    known.clock.advance(2 * FIRST_PAUSE)
    await known.client.look()
    assert not store.open
    assert await read(known) == "valid"


async def test_refusals_never_leave_a_ca_alone() -> None:
    """However many: it answers."""
    known, store = await given(), FakeStandingStore()
    known.client = guarded(known, store)
    known.ca.script.faults.append(
        Fault.refusal(Resource.ACCOUNT, 403, "rejectedIdentifier", times=FOREVER)
    )
    for _ in range(20):
        known.clock.advance(timedelta(seconds=1))
        with pytest.raises(Refused):
            await read(known)
    assert not store.open


async def test_limit_is_shared_with_the_next_process() -> None:
    """It asks nothing before the time that the CA named to the one before it."""
    known, store = await given(), FakeStandingStore()
    known.client = guarded(known, store)
    known.ca.script.faults.append(
        Fault.refusal(Resource.ACCOUNT, 429, "rateLimited", retry_after="120")
    )
    with pytest.raises(Unreachable):
        await read(known)
    asked = known.ca.asked(Resource.ACCOUNT)
    known.client = guarded(known, store)
    with pytest.raises(Unreachable, match="held back"):
        await read(known)
    assert known.ca.asked(Resource.ACCOUNT) == asked
    known.clock.advance(timedelta(seconds=121))
    assert await read(known) == "valid"
