"""Where the API server asks."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from broker.admission.denials import Malformed
from broker.admission.metrics import AdmissionMetrics
from broker.admission.reviews import MAX_MESSAGE_CHARS, Admitted, Asked, Outcome
from broker.admission.server import create_admission_app, seconds_left
from broker.web.listeners import start_unix
from tests.fakes.pods import pod, review


class Answers:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.admitted: Admitted | Exception = Admitted(outcome=Outcome.UNTOUCHED)
        self.asked: list[tuple[Asked, float]] = []

    async def answer(self, asked: Asked, seconds: float) -> Admitted:
        """Answer."""
        self.asked.append((asked, seconds))
        if isinstance(self.admitted, Exception):
            raise self.admitted
        return self.admitted


@pytest.fixture
def answers() -> Answers:
    """Everything is let through."""
    return Answers()


@pytest.fixture
def metrics() -> AdmissionMetrics:
    """Nothing has been counted."""
    return AdmissionMetrics("1.0")


@pytest.fixture
async def session(
    tmp_path: Path, answers: Answers, metrics: AdmissionMetrics
) -> AsyncIterator[aiohttp.ClientSession]:
    """An API server."""
    app = create_admission_app(
        mutate=answers.answer, validate=None, metrics=metrics, timeout=timedelta(seconds=7)
    )
    path = tmp_path / "admission.sock"
    listener = await start_unix(app, path)
    async with aiohttp.ClientSession(
        "http://admission", connector=aiohttp.UnixConnector(str(path))
    ) as made:
        yield made
    await listener.stop()


async def ask(
    session: aiohttp.ClientSession, path: str = "/mutate?timeout=10s", **more: Any
) -> tuple[int, dict[str, Any]]:
    """Ask about a pod."""
    async with session.post(path, json=review(pod(), **more)) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def test_a_review_is_answered(session: aiohttp.ClientSession, answers: Answers) -> None:
    """Under the uid of the request, within the time that the API server waits."""
    status, body = await ask(session)
    assert status == 200
    assert body["kind"] == "AdmissionReview"
    assert body["response"]["allowed"] is True
    ((asked, seconds),) = answers.asked
    assert body["response"]["uid"] == asked.uid
    assert seconds == 7.0


async def test_a_refusal_is_answered_counted_and_told(
    session: aiohttp.ClientSession, answers: Answers, metrics: AdmissionMetrics
) -> None:
    """In one line, without what the pod says."""
    answers.admitted = Admitted(outcome=Outcome.REFUSED, message="no, because")
    with structlog.testing.capture_logs() as lines:
        _, body = await ask(session, name="web-0")
    assert body["response"]["status"]["message"] == "no, because"
    (line,) = lines
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "admission",
        "log_level": "info",
        "webhook": "mutate",
        "outcome": "refused",
        "uid": body["response"]["uid"],
        "namespace": "shop",
        "name": "web-0",
        "is_dry_run": False,
        "reason": "no, because",
    }
    assert 'outcome="refused",webhook="mutate"} 1.0' in metrics.render().decode()


async def test_what_is_told_of_a_refusal_is_the_sentence_that_was_answered(
    session: aiohttp.ClientSession, answers: Answers
) -> None:
    """On one line and no longer; of the object itself nothing but its name is told."""
    answers.admitted = Admitted(outcome=Outcome.REFUSED, message="no:\n" + "x" * 5_000)
    document = pod({"names": "web.shop.svc"})
    with structlog.testing.capture_logs() as lines:
        async with session.post("/mutate", json=review(document, name="web-0")) as answer:
            said = (await answer.json())["response"]["status"]["message"]
    assert [line["reason"] for line in lines] == [said]
    assert len(said) == MAX_MESSAGE_CHARS
    assert "web.shop.svc" not in str(lines)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"request": {}}'])
async def test_what_is_no_review_is_a_bad_request(
    session: aiohttp.ClientSession, answers: Answers, metrics: AdmissionMetrics, body: bytes
) -> None:
    """Counted apart; nobody is asked."""
    async with session.post("/mutate", data=body) as answer:
        assert answer.status == 400
    assert answers.asked == []
    assert 'outcome="malformed",webhook="mutate"} 1.0' in metrics.render().decode()


async def test_a_pod_of_no_form_is_a_bad_request(
    session: aiohttp.ClientSession, answers: Answers
) -> None:
    """No API server sends one."""
    answers.admitted = Malformed("'containers' is no list")
    async with session.post("/mutate", json=review(pod())) as answer:
        assert (answer.status, await answer.text()) == (400, "'containers' is no list\n")


async def test_what_is_too_large_is_not_read(session: aiohttp.ClientSession) -> None:
    """What an API server can send is: an object of 3 MiB, before and after."""
    document = pod()
    document["metadata"]["annotations"]["x"] = "x" * 3 * 1024 * 1024
    asked = io.BytesIO(json.dumps(review(document, oldObject=document)).encode())
    async with session.post("/mutate", data=asked) as answer:
        assert answer.status == 200
    async with session.post("/mutate", data=io.BytesIO(b"x" * (13 * 1024 * 1024))) as answer:
        assert answer.status == 413


async def test_a_request_that_never_ends_is_given_up(
    session: aiohttp.ClientSession, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends a byte now and then holds nothing for long."""
    monkeypatch.setattr("broker.admission.server.BODY_SECONDS", 0.05)
    never = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with session.post("/mutate", data=trickle()) as answer:
        assert answer.status == 408
    never.set()
    assert answers.asked == []


async def test_only_what_there_is_can_be_asked(session: aiohttp.ClientSession) -> None:
    """And only by the method that an API server uses."""
    async with session.get("/mutate") as answer:
        assert answer.status == 405
    async with session.post("/metrics") as answer:
        assert answer.status == 404


async def test_without_a_configuration_of_the_brokers_policies_pass_untried(
    session: aiohttp.ClientSession,
) -> None:
    """The broker itself refuses what does not load."""
    status, body = await ask(session, "/validate", kind="ConfigMap")
    assert (status, body["response"]["allowed"]) == (200, True)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 7.0), ("10s", 7.0), ("5s", 4.5), ("1s", 0.5), ("0s", 0.5), ("30s", 7.0),
        ("10", 7.0), ("1m", 7.0), ("-5s", 7.0),
    ],
)  # fmt: skip
def test_an_answer_is_there_before_the_api_server_gives_up(
    asked: str | None, seconds: float
) -> None:
    """As soon as it says, and not later than is configured."""
    assert seconds_left(asked, timedelta(seconds=7)) == seconds
