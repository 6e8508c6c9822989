"""A timed upstream passes every call on unchanged, and counts how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.app.observed import MAX_REASON_CHARS, ObservedUpstream
from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Upstream, UpstreamOrder
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.telemetry import UPSTREAM_CALLS, Telemetry
from tests.fakes.builtin_ca import request
from tests.fakes.clock import FakeClock

URL = "https://ca.example/order/1"
REQUEST = request(reference="work-1")
ORDER = UpstreamOrder(url=URL, status=OrderStatus.READY, identifiers=REQUEST.identifiers)

Call = Callable[[Upstream], Awaitable[object]]

CALLS: dict[str, tuple[Call, str, tuple[object, ...]]] = {
    "open-order": (lambda one: one.open_order(REQUEST), "open_order", (REQUEST,)),
    "seek-order": (lambda one: one.seek_order(REQUEST, ["u"]), "seek_order", (REQUEST, ["u"])),
    "authorize": (lambda one: one.authorize(ORDER), "authorize", (ORDER,)),
    "finalize": (lambda one: one.finalize(ORDER, b"csr"), "finalize", (ORDER, b"csr")),
    "read-order": (lambda one: one.read_order(URL), "read_order", (URL,)),
    "withdraw": (lambda one: one.withdraw(ORDER), "withdraw", (ORDER,)),
    "download": (lambda one: one.download(ORDER), "download", (ORDER,)),
    "download-alternates": (
        lambda one: one.download_alternates(ORDER),
        "download_alternates",
        (ORDER,),
    ),
    "renewal-info": (lambda one: one.renewal_info("a.b"), "renewal_info", ("a.b",)),
    "revoke": (lambda one: one.revoke(b"der", 4), "revoke", (b"der", 4)),
}
"""Name in the metrics → the call, the method that is to be called, and with what."""


class Recorder:
    """An upstream that remembers what it was asked, and answers or fails as it is told."""

    is_local = True

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, tuple[object, ...]]] = []

    def __getattr__(self, method: str) -> Any:
        async def answer(*arguments: object) -> object:
            self.asked.append((method, arguments))
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return answer


async def counted(call: str, outcome: object) -> tuple[Recorder, object, dict[str, float]]:
    """Make *call* and return whom it reached, how it ended, and the series that are not zero."""
    telemetry = Telemetry(version="0", upstreams=["ca"], clock=FakeClock())
    inner: Any = Recorder(outcome)
    try:
        ended: object = await CALLS[call][0](ObservedUpstream("ca", inner, telemetry))
    except (Refused, Unreachable, Broken, RuntimeError, asyncio.CancelledError) as error:
        ended = error
    lines = (await telemetry.render()).decode().splitlines()
    wanted = ("penstock_upstream_seconds_count", "penstock_upstream_errors_total")
    pairs = (line.rpartition(" ") for line in lines if line.startswith(wanted))
    return inner, ended, {name: float(value) for name, _, value in pairs if float(value)}


def test_every_call_of_the_port_is_observed() -> None:
    """What telemetry knows as calls is what is tried here."""
    assert set(CALLS) == set(UPSTREAM_CALLS)


@pytest.mark.parametrize("call", CALLS)
async def test_call_is_passed_on_and_timed(call: str) -> None:
    """The same arguments go in, the same answer comes out, and nothing counts as an error."""
    inner, ended, series = await counted(call, "answer")
    assert inner.asked == [CALLS[call][1:]]
    assert ended == (None if call in ("revoke", "withdraw") else "answer")
    assert series == {f'penstock_upstream_seconds_count{{call="{call}",upstream="ca"}}': 1}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused(Problem(ProblemType.CAA, "no")), "refused"),
        (Unreachable("away"), "unreachable"),
        (Broken("nonsense"), "broken"),
        (RuntimeError("a bug"), "other"),
        (asyncio.CancelledError(), "other"),
    ],
    ids=["refused", "unreachable", "broken", "bug", "cancelled"],
)
async def test_failure_is_passed_on_and_counted_by_kind(error: Exception, kind: str) -> None:
    """What is no outcome of the port's is no success either."""
    _, ended, series = await counted("finalize", error)
    assert ended is error
    assert series == {
        'penstock_upstream_seconds_count{call="finalize",upstream="ca"}': 1,
        f'penstock_upstream_errors_total{{call="finalize",error="{kind}",upstream="ca"}}': 1,
    }


@pytest.mark.parametrize(
    ("call", "about"),
    [("open-order", "work-1"), ("finalize", URL), ("read-order", URL), ("revoke", None)],
)
async def test_log_says_what_failed_about_which_order(call: str, about: str | None) -> None:
    """One line, with what a CA chose to say cut and made harmless."""
    with capture_logs() as lines:
        await counted(call, Unreachable("away\x1b[31m" + "y" * 1000))
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("upstream call failed", "warning")
    assert (line["upstream"], line["call"], line["about"]) == ("ca", call, about)
    assert line["error"] == "unreachable"
    assert line["reason"].startswith("away\\u001b[31my")
    assert len(line["reason"]) == MAX_REASON_CHARS


async def test_log_says_nothing_of_what_went_well() -> None:
    """A line for each call would hide those that matter."""
    with capture_logs() as lines:
        await counted("finalize", "answer")
    assert lines == []


def test_locality_is_that_of_the_one_inside() -> None:
    """A built-in CA has nothing to prepare, observed or not."""
    inner: Any = Recorder(None)
    telemetry = Telemetry(version="0", upstreams=[], clock=FakeClock())
    assert ObservedUpstream("ca", inner, telemetry).is_local
