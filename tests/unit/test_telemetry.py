"""Metrics start at zero, count what they are told, and have bounded labels."""

import io
import json
import logging
import platform
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog
from prometheus_client import Gauge

from broker.issuance.errors import Unreachable
from broker.issuance.events import Event, EventKind
from broker.telemetry import LIMITS, Snapshot, Telemetry, set_up_log
from broker.web.limits import Limit
from tests.fakes.clock import START, FakeClock


def made(snapshot: Snapshot | Exception | None = None) -> Telemetry:
    """Return telemetry over one upstream and a store that answers with *snapshot*."""

    async def take() -> Snapshot:
        if isinstance(snapshot, Exception):
            raise snapshot
        assert snapshot is not None
        return snapshot

    return Telemetry(
        version="0.1.0",
        upstreams=["local"],
        clock=FakeClock(),
        snapshot=take if snapshot is not None else None,
    )


async def values_of(telemetry: Telemetry) -> dict[str, float]:
    """Return each series with its value."""
    lines = (await telemetry.render()).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}


async def test_counters_start_at_zero() -> None:
    """The first refusal is an increase and not the birth of a series."""
    values = await values_of(made())
    assert values['penstock_orders_total{outcome="issued"}'] == 0
    assert values['penstock_refusals_total{problem="badNonce"}'] == 0
    errors = 'penstock_upstream_errors_total{call="finalize",error="refused",upstream="local"}'
    assert values[errors] == 0


async def test_events_are_counted_by_kind_and_outcome() -> None:
    """An issued certificate is an event and an order's end."""
    telemetry = made()
    telemetry.on_events([Event(kind=EventKind.CERTIFICATE_ISSUED, at=START)] * 2)
    telemetry.on_events([Event(kind=EventKind.CHALLENGE_VALID, at=START)])
    telemetry.on_events([Event(kind=EventKind.UPSTREAM_ORDER_LOST, at=START)])
    values = await values_of(telemetry)
    assert values['penstock_orders_total{outcome="issued"}'] == 2
    assert values['penstock_events_total{kind="challenge-valid"}'] == 1
    assert values["penstock_upstream_orders_unaccounted_total"] == 1


async def test_names_are_counted_by_what_caa_said() -> None:
    """Each name once, whatever order it was in."""
    telemetry = made()
    outcomes = ["permits", "forbids", "forbids"]
    data = {"names": [{"name": "a.example", "outcome": outcome} for outcome in outcomes]}
    telemetry.on_events([Event(kind=EventKind.CAA_LOOKED_AT, at=START, data=data)])
    values = await values_of(telemetry)
    assert values['penstock_caa_names_total{outcome="forbids"}'] == 2
    assert values['penstock_caa_names_total{outcome="permits"}'] == 1
    assert values['penstock_caa_names_total{outcome="failed"}'] == 0


async def test_requests_and_refusals_are_counted() -> None:
    """By operation and class of status, and by problem type."""
    telemetry = made()
    telemetry.request_served(operation="finalize", status=403, problem="orderNotReady", seconds=1)
    telemetry.request_served(operation="finalize", status=200, problem=None, seconds=1)
    values = await values_of(telemetry)
    assert values['penstock_acme_requests_total{code="4xx",operation="finalize"}'] == 1
    assert values['penstock_acme_requests_total{code="2xx",operation="finalize"}'] == 1
    assert values['penstock_refusals_total{problem="orderNotReady"}'] == 1
    assert values['penstock_acme_request_seconds_count{operation="finalize"}'] == 2


async def test_limits_that_were_reached_are_counted() -> None:
    """By the limit; a word that is none of them is ``other``."""
    telemetry = made()
    for limit in ("account", "account", "connections", "something"):
        telemetry.limit_reached(limit)
    values = await values_of(telemetry)
    assert values['penstock_rate_limited_total{limit="account"}'] == 2
    assert values['penstock_rate_limited_total{limit="connections"}'] == 1
    assert values['penstock_rate_limited_total{limit="other"}'] == 1
    assert values['penstock_rate_limited_total{limit="address"}'] == 0


def test_every_limit_of_the_listener_has_its_series() -> None:
    """The two lists are one."""
    assert set(LIMITS) == set(Limit)


async def test_unknown_words_make_no_series_of_their_own() -> None:
    """What is not on a list is ``other``, however many there are."""
    telemetry = made()
    before = len(await values_of(telemetry))
    for number in range(50):
        telemetry.request_served(
            operation=f"op-{number}", status=400, problem=f"x{number}", seconds=0
        )
        telemetry.upstream_called(
            upstream=f"u{number}", call=f"c{number}", seconds=0, error=f"e{number}"
        )
    values = await values_of(telemetry)
    assert values['penstock_refusals_total{problem="other"}'] == 50
    # One histogram and one counter with its time of birth for the pair (other, other).
    assert len(values) - before < 20


async def test_upstream_is_timed() -> None:
    """Calls with their errors."""
    telemetry = made()
    telemetry.upstream_called(upstream="local", call="finalize", seconds=1, error="unreachable")
    values = await values_of(telemetry)
    assert values['penstock_upstream_seconds_count{call="finalize",upstream="local"}'] == 1
    series = 'penstock_upstream_errors_total{call="finalize",error="unreachable",upstream="local"}'
    assert values[series] == 1


async def test_commits_of_the_store_are_counted_once() -> None:
    """The store keeps the totals; a second scrape does not add them a second time."""
    commits = {"durable": 5, "relaxed": 2}
    telemetry = made(Snapshot(counts={}, expiries=[], commits=commits, transactions=64))
    for _ in range(2):
        values = await values_of(telemetry)
    assert values['penstock_store_commits_total{kind="durable"}'] == 5
    assert values['penstock_store_commits_total{kind="relaxed"}'] == 2
    assert values['penstock_store_commits_total{kind="failed"}'] == 0
    assert values["penstock_store_transactions_total"] == 64


async def test_snapshot_becomes_gauges() -> None:
    """Buckets of expiry, counts by status, and what the CA may hold without us."""
    ends = [START + timedelta(days=days) for days in (0.5, 2, 40)]
    counts = {"orders_valid": 7, "work_opened": 1, "jobs_fulfil": 3}
    values = await values_of(made(Snapshot(counts=counts, expiries=ends, suspensions=1)))
    assert values['penstock_certificates_expiring{within="1d"}'] == 1
    assert values['penstock_certificates_expiring{within="3d"}'] == 2
    assert values['penstock_certificates_expiring{within="90d"}'] == 3
    assert values["penstock_certificate_soonest_expiry_timestamp_seconds"] == ends[0].timestamp()
    assert values['penstock_orders_by_status{status="valid"}'] == 7
    assert values['penstock_jobs{kind="fulfil"}'] == 3
    assert values['penstock_upstream_orders{status="opened"}'] == 1
    assert values["penstock_upstream_suspensions"] == 1
    assert values["penstock_store_up"] == 1


async def test_ends_of_built_in_cas_are_shown_as_they_are_now() -> None:
    """A role that nobody has any more is gone from the page."""
    telemetry = made()
    ends = {("local", "root"): START, ("local", "next"): START}
    telemetry.find_ca_ends = lambda: ends
    name = "penstock_ca_certificate_expiry_timestamp_seconds"
    values = await values_of(telemetry)
    assert values[f'{name}{{role="next",upstream="local"}}'] == START.timestamp()
    del ends["local", "next"]
    values = await values_of(telemetry)
    assert [one for one in values if one.startswith(name)] == [
        f'{name}{{role="root",upstream="local"}}'
    ]


async def test_unreachable_store_does_not_hide_the_rest() -> None:
    """A scrape tells that the store is down and goes on."""
    values = await values_of(made(Unreachable("locked")))
    assert values["penstock_store_up"] == 0
    python = platform.python_version()
    assert values[f'penstock_build_info{{python="{python}",version="0.1.0"}}'] == 1


@pytest.fixture
def _restored_log() -> Iterator[None]:
    """Leave the process's log as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored_log")
def test_log_lines_are_fields_in_json() -> None:
    """Time, level, sentence and fields, our own and a library's."""
    out = io.StringIO()
    set_up_log(form="auto", level="info", stream=out)
    structlog.get_logger("penstock").info("request", status=200)
    structlog.get_logger("penstock").debug("not shown")
    logging.getLogger("aiohttp.server").warning("odd %s", "header")
    ours, theirs = (json.loads(line) for line in out.getvalue().splitlines())
    assert (ours["event"], ours["level"], ours["status"]) == ("request", "info", 200)
    assert ours["ts"].endswith("Z")
    assert (theirs["event"], theirs["level"]) == ("odd header", "warning")


@pytest.mark.usefixtures("_restored_log")
@pytest.mark.parametrize("form", ["json", "text"])
def test_traceback_tells_no_local_variables(form: str) -> None:
    """A key that was in a variable when something broke stays there."""
    out = io.StringIO()
    set_up_log(form=form, level="info", stream=out)

    def fail() -> None:
        passphrase = "hunter2"
        raise RuntimeError(f"a sentence of {len(passphrase)}")

    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger().error("failed", exc_info=error)
    assert "a sentence of 7" in out.getvalue()
    assert "hunter2" not in out.getvalue().replace('passphrase = "hunter2"', "")


async def test_whoever_has_metrics_of_their_own_is_asked_at_each_scrape() -> None:
    """Their registry is ours, so that there is one page."""
    telemetry = made()
    gauge = Gauge("penstock_of_somebody", "Of somebody.", registry=telemetry.registry)
    telemetry.before_render.append(gauge.inc)
    assert (await values_of(telemetry))["penstock_of_somebody"] == 1
    assert (await values_of(telemetry))["penstock_of_somebody"] == 2


async def test_lost_accounts_are_counted_while_they_are_lost() -> None:
    """One series for each cause; what is found again leaves none."""
    losses = [("local", "key-gone"), ("local", "key-gone")]
    telemetry = made()
    telemetry.find_losses = lambda: losses
    series = 'penstock_upstream_account_lost{cause="key-gone",upstream="local"}'
    assert (await values_of(telemetry))[series] == 2
    losses.clear()
    assert series not in await values_of(telemetry)
