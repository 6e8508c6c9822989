"""The operator API: known people alone, no browsers, bounded bodies, and problems as they are."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.policy.roles import EVERYWHERE, Role
from broker.policy.units import Rate
from broker.protocol.problems import Problem, ProblemType
from broker.web.authorizing import Gate
from broker.web.bearer import TokenRejected
from broker.web.callers import NotKnown
from broker.web.listeners import start_unix
from broker.web.operator import MAX_COMMAND_BYTES, OperationError
from broker.web.operator_api import ApiRates, create_operator_api
from broker.web.rights import Caller, Thing
from tests.fakes.clock import START, FakeClock

JANE = Caller(
    name="jane", roles={EVERYWHERE: frozenset({Role.OPERATOR})}, proof={"subject": "00u-jane"}
)
VERA = Caller(name="vera", roles={"web": frozenset({Role.VIEWER})}, proof={"subject": "00u-vera"})


class FakeOperations:
    """Remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    async def status(self) -> Any:
        return await self._answer("status", {})

    async def order_list(self, **arguments: Any) -> Any:
        return await self._answer("order_list", arguments)

    async def cert_revoke(self, *, actor: Actor, **arguments: Any) -> Any:
        return await self._answer("cert_revoke", {**arguments, "actor": actor})

    async def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        self.asked.append((name, arguments))
        if self.error is not None:
            raise self.error
        return [{"name": "grüß-dich.example"}]


class FakeDoor:
    """Knows two people by their tokens."""

    def __init__(self) -> None:
        self.is_away = False

    def by_certificate(self, der: bytes) -> Caller:
        raise NotKnown("certificate is nobody's")

    async def by_token(self, text: str, certificate_der: bytes | None) -> Caller:
        if self.is_away:
            raise Unreachable("keys cannot be had", retry_at=START + timedelta(seconds=30))
        if text in ("jane", "vera"):
            return JANE if text == "jane" else VERA
        if text == "groupless":
            raise NotKnown("'corp/x' has no role here")
        raise TokenRejected('token is "odd"')


class FakeBelonging:
    """Everything is of the community web."""

    async def communities_of(self, thing: Thing, reference: str) -> frozenset[str]:
        return frozenset({"web"})


class Site:
    """The listener, and what stands on both sides."""

    def __init__(self) -> None:
        self.operations = FakeOperations()
        self.door = FakeDoor()
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.told = asyncio.Event()
        self.session: aiohttp.ClientSession

    async def record(self, event: Event) -> None:
        self.events.append(event)
        self.told.set()

    async def ask(
        self, method: str, path: str, *, token: str | None = "jane", **more: Any
    ) -> tuple[int, Any, Any]:
        """Return status, answer and headers."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, path, headers=headers, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Serve it at a Unix socket, where there is no TLS and so no client certificate."""
    made = Site()
    operations: Any = made.operations
    gate = Gate(operations, FakeBelonging(), clock=made.clock, record=made.record)
    app = create_operator_api(
        gate,
        made.door,
        is_current=lambda _connection: True,
        rates=ApiRates(Rate(20, timedelta(minutes=1)), Rate(5, timedelta(minutes=1))),
        clock=made.clock,
        record=made.record,
        description='{"openapi": "3.1.0"}\n',
    )
    path = tmp_path / "api.sock"
    listener = await start_unix(app, path)
    async with aiohttp.ClientSession(
        "http://localhost", connector=aiohttp.UnixConnector(str(path))
    ) as session:
        made.session = session
        yield made
    await listener.stop()


async def test_answer_is_what_the_command_answers(site: Site) -> None:
    """Not wrapped into anything, and kept by nobody on the way."""
    status, answer, headers = await site.ask("GET", "/v1/order/list?limit=5&community=web")
    assert (status, answer) == (200, [{"name": "grüß-dich.example"}])
    assert site.operations.asked == [("order_list", {"limit": 5, "community": "web"})]
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert site.events == []


async def test_change_is_kept_with_who_and_from_where_before_it_is_done(site: Site) -> None:
    """Beside the event of the change itself, which has the same actor."""
    body = {"certificate": "c1", "reason": "key lost"}
    assert (await site.ask("POST", "/v1/cert/revoke", json=body))[0] == 200
    (event,) = site.events
    assert event.kind is EventKind.OPERATOR_COMMAND
    assert (event.actor.name, event.actor.reason) == ("operator:jane", "key lost")
    assert event.data["command"] == "cert_revoke"
    assert event.data["subject"] == "00u-jane"
    assert "peer" in event.data
    ((_, given),) = site.operations.asked
    assert given["actor"] == event.actor


async def test_whoami_tells_name_and_roles(site: Site) -> None:
    """So that people need not guess."""
    said = (await site.ask("GET", "/v1/whoami", token="vera"))[1]
    assert said == {"name": "vera", "roles": {"web": ["viewer"]}}


async def test_description_is_served_to_whoever_asks(site: Site) -> None:
    """It is no secret, and tools read it before they have a token."""
    assert await site.ask("GET", "/v1/openapi.json", token=None) is not None
    assert (await site.ask("GET", "/v1/openapi.json", token=None))[1] == {"openapi": "3.1.0"}


async def test_who_shows_nothing_is_told_what_to_show(site: Site) -> None:
    """Without an error code, as nothing was wrong with a token (RFC 6750 §3.1)."""
    status, answer, headers = await site.ask("GET", "/v1/status", token=None)
    assert status == 401
    assert headers["WWW-Authenticate"] == 'Bearer realm="penstock operators"'
    assert "client certificate or a bearer token" in answer["detail"]
    assert site.operations.asked == []


async def test_token_that_proves_nothing_is_told_so(site: Site) -> None:
    """In the header too, in characters that may stand there."""
    status, answer, headers = await site.ask("GET", "/v1/status", token="odd")
    assert (status, answer["title"]) == (401, "Unauthorized")
    assert (
        'error="invalid_token", error_description="token is \'odd\'"' in headers["WWW-Authenticate"]
    )


@pytest.mark.parametrize(
    "greeting",
    ["Basic amFuZTp4", "Bearer", "Bearer ", "jane", ""],
    ids=["basic", "nothing", "blank", "bare", "empty"],
)
async def test_other_greetings_are_none(site: Site, greeting: str) -> None:
    """A token stands behind its scheme, in the header alone."""
    headers = {"Authorization": greeting}
    assert (await site.ask("GET", "/v1/status", token=None, headers=headers))[0] == 401
    assert (await site.ask("GET", "/v1/status?access_token=jane", token=None))[0] == 401


async def test_two_tokens_are_none(site: Site) -> None:
    """Which one counts would be a guess."""
    headers = [("Authorization", "Bearer jane"), ("Authorization", "Bearer vera")]
    async with site.session.get("/v1/status", headers=headers) as answer:
        assert answer.status == 401


async def test_strangers_are_kept_account_of(site: Site) -> None:
    """From where, and why they are strangers; never the token."""
    await site.ask("GET", "/v1/status", token="groupless")
    await site.told.wait()
    (event,) = site.events
    assert event.kind is EventKind.REQUEST_REFUSED
    assert event.data["operation"] == "operator-api"
    assert "no role" in str(event.data["detail"])
    assert "groupless" not in str(event.data)


async def test_strangers_are_told_to_wait_and_known_people_are_not(site: Site) -> None:
    """A neighbour behind the same address locks nobody out."""
    found = [(await site.ask("GET", "/v1/status", token="odd"))[0] for _ in range(7)]
    assert found == [401] * 5 + [429] * 2
    status, _, headers = await site.ask("GET", "/v1/status", token=None)
    assert status == 429
    assert int(headers["Retry-After"]) > 0
    assert (await site.ask("GET", "/v1/status"))[0] == 200


async def test_person_over_the_rate_is_told_to_wait_and_others_are_not(site: Site) -> None:
    """Each has a bucket."""
    found = [(await site.ask("GET", "/v1/whoami"))[0] for _ in range(22)]
    assert found == [200] * 20 + [429] * 2
    assert (await site.ask("GET", "/v1/whoami", token="vera"))[0] == 200


async def test_who_may_not_is_told_so_and_it_is_an_event(site: Site) -> None:
    """With 403; whoever may is answered (the twin is above)."""
    body = {"certificate": "c1"}
    status, answer, _ = await site.ask("POST", "/v1/cert/revoke", token="vera", json=body)
    assert status == 403
    assert "role operator in community 'web'" in answer["detail"]
    assert answer["hint"] == "'vera' has viewer in 'web'"
    kinds = [one.kind for one in site.events]
    assert kinds == [EventKind.OPERATOR_COMMAND, EventKind.OPERATOR_REFUSED]
    assert site.operations.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["origin", "null", "cross-site", "same-site"],
)
async def test_what_a_page_had_a_browser_send_is_refused(
    site: Site, headers: dict[str, str]
) -> None:
    """A certificate in a browser is a key for every page that it shows."""
    assert (await site.ask("GET", "/v1/status", headers=headers))[0] == 403
    assert (await site.ask("OPTIONS", "/v1/status", headers=headers))[0] == 405
    assert site.operations.asked == []
    twin = {"Sec-Fetch-Site": "none"}
    assert (await site.ask("GET", "/v1/status", headers=twin))[0] == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"certificate": "c1"}', "text/plain", 415),
        (b"certificate=c1", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"certificate": "c1", "certificate": "c2"}', "application/json", 400),
        (b'{"certificate": 5}', "application/json", 400),
        (b"", "application/json", 400),
        (b'{"certificate": "c1", "reason": 5}', "application/json", 400),
        (b'{"certificate": "' + b"x" * MAX_COMMAND_BYTES + b'"}', "application/json", 413),
    ],
    ids=["text", "form", "broken", "list", "twice", "type", "empty", "reason", "large"],
)
async def test_body_that_is_none_of_ours_is_refused(
    site: Site, body: bytes, kind: str, status: int
) -> None:
    """Before anything is done, or kept as if it had been."""
    headers = {"Content-Type": kind}
    found, answer, _ = await site.ask("POST", "/v1/cert/revoke", data=body, headers=headers)
    assert found == status, answer
    assert answer["status"] == status
    assert site.operations.asked == []
    assert site.events == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/order/drop", 404),
        ("POST", "/v1/order/list", 405),
        ("GET", "/v1/cert/revoke", 405),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/command", 404),
    ],
)
async def test_other_paths_and_methods_are_problems(
    site: Site, method: str, path: str, status: int
) -> None:
    """Told as one, like everything."""
    found, answer, headers = await site.ask(method, path)
    assert (found, answer["status"]) == (status, status)
    assert headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OperationError("there is no order", "see order list"), 422, "there is no order"),
        (Problem(ProblemType.UNAUTHORIZED, "not yours"), 403, "not yours"),
        (Problem(ProblemType.MALFORMED, "odd"), 400, "odd"),
        (Refused(Problem(ProblemType.UNAUTHORIZED, "no")), 422, "the CA refused: no"),
        (Unreachable("away", retry_at=START + timedelta(seconds=9)), 503, "away"),
        (Conflict("somebody was first"), 409, "somebody was first"),
        (Broken("there is no such root"), 422, "there is no such root"),
        (ZeroDivisionError("a secret"), 500, "the broker failed"),
    ],
    ids=["operation", "problem", "malformed", "refused", "unreachable", "conflict", "broken",
         "bug"],
)  # fmt: skip
async def test_outcome_has_its_status(
    site: Site, error: Exception, status: int, words: str
) -> None:
    """And its sentence; a bug has an incident and nothing else."""
    site.operations.error = error
    found, answer, headers = await site.ask("GET", "/v1/status")
    assert (found, answer["detail"]) == (status, words)
    assert "a secret" not in str(answer)
    if status == 503:
        assert headers["Retry-After"] == "9"


async def test_provider_that_is_away_means_not_now(site: Site) -> None:
    """Nobody comes in by what cannot be verified."""
    site.door.is_away = True
    status, answer, headers = await site.ask("GET", "/v1/status")
    assert (status, answer["detail"]) == (503, "keys cannot be had")
    assert headers["Retry-After"] == "30"
    assert site.operations.asked == []
