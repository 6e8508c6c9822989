"""The broker is asked over real HTTPS, as a service account."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.admission.asking import BrokerReviews
from broker.admission.verdicts import Workload
from broker.issuance.errors import Broken, Unreachable
from tests.contract.admission.servers import BrokerApi, Standing, standing
from tests.fakes.loop_time import LoopTime

SECONDS = 30.0
"""How long an API server waits, in seconds: more than any answer takes here."""

WORKLOAD = Workload(
    namespace="shop",
    service_account="web",
    pod="web-7d9f-",
    services=("web",),
    names=("web.shop.svc",),
    profile="server",
)

ALLOWED: dict[str, Any] = {"allowed": True, "names": ["web.shop.svc"], "upstreams": ["local"]}


@pytest.fixture
def broker() -> BrokerApi:
    """A broker that allows it."""
    return BrokerApi(lambda _asked: (200, ALLOWED))


@pytest.fixture
async def stands(broker: BrokerApi, tmp_path: Path) -> AsyncIterator[Standing]:
    """It stands."""
    async with standing(broker.app, tmp_path) as made:
        yield made


def asking(stands: Standing, token: bytes = b"operator-token\n") -> BrokerReviews:
    """Return what asks it."""
    return BrokerReviews(
        stands.url, cluster="prod", token=lambda: token, anchors=stands.ca_bundle, user_agent="test"
    )


@pytest.fixture
async def reviews(stands: Standing) -> AsyncIterator[BrokerReviews]:
    """What asks it."""
    made = asking(stands)
    yield made
    await made.close()


async def test_a_workload_is_asked_about(reviews: BrokerReviews, broker: BrokerApi) -> None:
    """As the broker wants it, with the token of the operator API."""
    verdict = await reviews.review(WORKLOAD, SECONDS)
    assert verdict.is_allowed
    assert verdict.names == ("web.shop.svc",)
    assert broker.tokens == ["Bearer operator-token"]
    assert broker.asked == [
        {
            "cluster": "prod",
            "namespace": "shop",
            "service_account": "web",
            "pod": "web-7d9f-",
            "services": ["web"],
            "names": ["web.shop.svc"],
            "profile": "server",
        }
    ]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_broker_that_is_busy_is_asked_again(
    reviews: BrokerReviews, broker: BrokerApi, status: int
) -> None:
    """Until it answers, or the time is over."""
    answers = [(status, {"detail": "later"})] * 2
    broker.answer = lambda _asked: answers.pop() if answers else (200, ALLOWED)
    assert (await reviews.review(WORKLOAD, SECONDS)).is_allowed
    assert len(broker.asked) == 3
    broker.answer = lambda _asked: (status, {"detail": "later"})
    with pytest.raises(Unreachable, match="cannot say now: later"):
        await reviews.review(WORKLOAD, 0.5)


async def test_a_broker_that_does_not_let_us_ask_is_asked_once(
    reviews: BrokerReviews, broker: BrokerApi
) -> None:
    """A person has to change something; what it says is told."""
    broker.answer = lambda _asked: (403, {"detail": "not for you", "hint": "role admission"})
    with pytest.raises(Broken, match=r"not for you \(role admission\)"):
        await reviews.review(WORKLOAD, SECONDS)
    assert len(broker.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", {}, {"allowed": True, "names": []}])
async def test_an_answer_that_is_no_verdict_lets_nobody_through(
    reviews: BrokerReviews, broker: BrokerApi, body: Any
) -> None:
    """Unsure means no."""
    broker.answer = lambda _asked: (200, body)
    with pytest.raises(Broken):
        await reviews.review(WORKLOAD, SECONDS)


async def test_a_redirect_is_not_followed(reviews: BrokerReviews, broker: BrokerApi) -> None:
    """The token is for nobody else."""
    broker.answer = lambda _asked: (307, b"")
    with pytest.raises(Broken, match="status 307"):
        await reviews.review(WORKLOAD, SECONDS)


async def test_a_broker_that_hangs_costs_the_time_and_no_more(
    reviews: BrokerReviews, broker: BrokerApi
) -> None:
    """The API server has its answer in time."""
    time = LoopTime()

    async def hang() -> None:
        time.advance(timedelta(seconds=SECONDS))
        await asyncio.Event().wait()

    broker.before = hang
    with pytest.raises(Unreachable, match="did not answer within"):
        await reviews.review(WORKLOAD, SECONDS)


async def test_an_impostor_is_shown_no_token(stands: Standing, tmp_path: Path) -> None:
    """Nor one whom another CA certifies; once the roots are the broker's, it is asked."""
    other = BrokerApi(lambda _asked: (200, ALLOWED))
    good = stands.ca_bundle.read_bytes()
    async with standing(other.app, tmp_path / "other") as impostor:
        made = BrokerReviews(
            impostor.url,
            cluster="prod",
            token=lambda: b"t",
            anchors=stands.ca_bundle,
            user_agent="test",
        )
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await made.review(WORKLOAD, 0.3)
        assert other.tokens == []
        stands.ca_bundle.write_bytes(good + impostor.ca_bundle.read_bytes())
        assert (await made.review(WORKLOAD, SECONDS)).is_allowed
        await made.close()


async def test_an_older_tls_is_not_spoken(broker: BrokerApi, tmp_path: Path) -> None:
    """The operator API speaks 1.3 alone, and so do we."""
    async with standing(broker.app, tmp_path, most=ssl.TLSVersion.TLSv1_2) as old:
        made = asking(old)
        with pytest.raises(Unreachable):
            await made.review(WORKLOAD, 0.3)
        await made.close()
    assert broker.tokens == []


async def test_a_token_that_cannot_be_read_is_waited_for(stands: Standing) -> None:
    """The kubelet writes it."""
    tokens = [b"\xff", b"good"]
    made = BrokerReviews(
        stands.url,
        cluster="prod",
        token=lambda: tokens.pop(0),
        anchors=stands.ca_bundle,
        user_agent="test",
    )
    assert (await made.review(WORKLOAD, SECONDS)).is_allowed
    await made.close()
