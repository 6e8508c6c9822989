"""Four levers hold the validity cap, each seen at a real Pebble and counted in Pebble's own log.

One Pebble with three profiles, and three upstreams that lead to it, each with other facts: one
knows that Pebble honours notAfter, one does not, and one is wrong about how long a profile is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.cas import WEB_ZONE, broker
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, days
from tests.deployments.requester import Requester
from tests.peers import authority, process
from tests.peers.bind import Bind
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, Obtained
from tests.peers.lego import Lego
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = pytest.mark.peers

PEBBLE_PROFILES: Final = {"default": days(90), "shortlived": days(6), "long": days(40)}
"""What Pebble really issues."""

TOLERANCE: Final = timedelta(seconds=60)

REVOKED_SECONDS: Final = 60.0
"""Longest wait for a revocation that follows at once."""

PROFILES: Final[Mapping[str, tuple[str, str, Sequence[str | None]]]] = {
    "asked": ("20d", "asks", [None]),
    "short": ("7d", "picks", ["default", "shortlived"]),
    "hopeless": ("3d", "picks", ["default", "shortlived"]),
    "lied": ("7d", "lies", ["long"]),
}
"""Our profiles: the cap, the upstream, and its profiles in order of preference."""

FACTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "asks": {"honours_not_after": True},
    "picks": {"honours_not_after": False, "profiles": {"default": "90d", "shortlived": "6d"}},
    "lies": {"honours_not_after": False, "profiles": {"long": "5d"}},
}


class Levers:
    """The deployment: a Pebble, and a broker with three opinions of it."""

    def __init__(self, tmp: Path, stack: ExitStack, named: Bind) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=named.address,
                options=PebbleOptions(profiles=PEBBLE_PROFILES),
            )
        )
        anchors = tmp / "anchors.pem"
        anchors.write_bytes(self.pebble.root_pem())
        upstreams = [
            AcmeCa(
                name=name,
                directory_url=self.pebble.directory_url,
                ca_bundle=self.pebble.ca_bundle,
                anchors=anchors,
                facts={"is_ct_logged": False, **facts},
            )
            for name, facts in FACTS.items()
        ]
        profiles: dict[str, object] = {
            name: {
                "description": f"cap {cap}",
                "cap": cap,
                "usages": ["server-auth"],
                "upstreams": [
                    {"upstream": upstream, **({"profile": choice} if choice else {})}
                    for choice in choices
                ],
            }
            for name, (cap, upstream, choices) in PROFILES.items()
        }
        self.penstock: Penstock = stack.enter_context(
            broker(tmp, named, self.client_port, plain, upstreams, profiles=profiles)
        )

    def requests_at_pebble(self) -> int:
        """Return how many requests Pebble has served, by its own log.

        Those for renewal information are not counted: the broker asks about what was issued before,
        whenever that is due.
        """
        served = [x for x in self.pebble.log_text().splitlines() if "-> calling handler()" in x]
        return sum("renewalInfo" not in one for one in served)

    async def order_of(self, name: str) -> dict[str, Any]:
        """Return what ``penstock order show`` tells of the newest order for *name*."""
        orders = await self.penstock.a_json("order", "list")
        order_id = next(order["order"] for order in orders if order["names"] == [name])
        shown: dict[str, Any] = await self.penstock.a_json("order", "show", order_id)
        return shown

    async def order_with(self, name: str, event: str) -> dict[str, Any]:
        """Wait until the newest order for *name* has an event of this kind, and return it then."""
        shown: dict[str, Any] = {}
        async with asyncio.timeout(REVOKED_SECONDS):
            while all(one["kind"] != event for one in shown.get("events", [])):
                shown = await self.order_of(name)
        return shown

    def requester(self) -> Requester:
        """Return a raw client of the broker."""
        return Requester(self.penstock.directory_url, self.penstock.ca_bundle)

    def refusals(self) -> list[str]:
        """Return the sentences of everything that policy refused, read past the broker."""
        where = f"file:{self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as database:
            rows = database.execute("SELECT data FROM events WHERE kind = 'request-refused'")
            documents = [json.loads(data) for (data,) in rows]
        return [found["sentence"] for one in documents for found in one.get("findings", [])]


@pytest.fixture(scope="module")
def levers(tmp_path_factory: pytest.TempPathFactory, name_server: Bind) -> Iterator[Levers]:
    """A Pebble, and a broker with three opinions of it."""
    with ExitStack() as stack:
        yield Levers(tmp_path_factory.mktemp("levers"), stack, name_server)


@pytest.fixture
def lego(levers: Levers, tmp_path: Path) -> Lego:
    """Return a lego of the broker's."""
    return Lego(tmp_path / "lego", levers.penstock.directory_url, levers.penstock.ca_bundle)


def fresh_name() -> str:
    """Return a name that no other test uses."""
    return f"h{secrets.token_hex(4)}.{WEB_ZONE}"


def whole_days_from_now(number: int) -> datetime:
    """Return a time in *number* days, in the whole seconds that ACME sends."""
    return (authority.real_now() + days(number)).replace(microsecond=0)


def check_ends(obtained: Obtained, lifetime: timedelta, started: datetime) -> None:
    """See that a certificate that was asked for after *started* ends *lifetime* later."""
    end = obtained.leaf().not_valid_after_utc
    assert started + lifetime - TOLERANCE <= end
    assert end <= authority.real_now() + lifetime + TOLERANCE


async def test_ask_makes_pebble_end_at_the_cap(levers: Levers, tmp_path: Path) -> None:
    """A CA that honours notAfter is asked for the cap, though its own profiles are longer."""
    name, started = fresh_name(), authority.real_now()
    penstock = levers.penstock
    client = Certbot(tmp_path / "certbot", penstock.directory_url, penstock.ca_bundle)
    obtained = await client.certonly_standalone(
        [name], http_port=levers.client_port, options=["--preferred-profile", "asked"]
    )
    check_ends(obtained, days(20), started)
    shown = await levers.order_of(name)
    assert (shown["lever"], shown["status"], shown["cap"]) == ("ask", "valid", "20d")
    assert "profiles.asked.cap" in shown["decision"]["cap_rule"]


async def test_ask_gives_exactly_the_end_that_a_client_names(levers: Levers, lego: Lego) -> None:
    """A client's own notAfter within the cap is kept to the second."""
    name, wanted = fresh_name(), whole_days_from_now(10)
    obtained = await lego.run_http(
        [name], http_port=levers.client_port, not_after=wanted, options=["--profile", "asked"]
    )
    assert obtained.leaf().not_valid_after_utc == wanted
    shown = await levers.order_of(name)
    assert shown["lever"] == "ask"
    assert datetime.fromisoformat(shown["not_after"]) == wanted


@pytest.mark.parametrize(
    ("profile", "ahead", "sentence"),
    [
        pytest.param("asked", 30, r"notAfter \S+ is 9 days past the 20d cap of profile 'asked'"),
        pytest.param("short", 3, r"can issue to notAfter .* does not honour notAfter"),
    ],
    ids=["past-the-cap", "upstream-that-does-not-honour-it"],
)
async def test_end_that_cannot_be_kept_is_an_error(
    levers: Levers, lego: Lego, profile: str, ahead: int, sentence: str
) -> None:
    """A notAfter that cannot be had is refused, never changed; the CA hears nothing of it."""
    asked = levers.requests_at_pebble()
    with pytest.raises(ClientFailed, match=sentence):
        await lego.run_http(
            [fresh_name()],
            http_port=levers.client_port,
            not_after=whole_days_from_now(ahead),
            options=["--profile", profile],
        )
    assert levers.requests_at_pebble() == asked


async def test_profile_that_is_short_enough_is_ordered(levers: Levers, lego: Lego) -> None:
    """Of a CA that grants no end, the first profile within the cap is taken, not the default."""
    name, started = fresh_name(), authority.real_now()
    obtained = await lego.run_http(
        [name], http_port=levers.client_port, options=["--profile", "short"]
    )
    check_ends(obtained, PEBBLE_PROFILES["shortlived"], started)
    shown = await levers.order_of(name)
    assert (shown["lever"], shown["upstream_profile"]) == ("profile", "shortlived")
    assert shown["upstream_order"]["not_after"] is None


async def test_refusal_comes_before_anything_is_ordered(levers: Levers, lego: Lego) -> None:
    """Where nothing can hold the cap, newOrder is refused with the reasons; the CA is not asked."""
    asked = levers.requests_at_pebble()
    sentence = r"can hold the 3d cap of profile 'hopeless' .*issues 90d .*; .*issues 6d"
    with pytest.raises(ClientFailed, match=sentence):
        await lego.run_http(
            [fresh_name()], http_port=levers.client_port, options=["--profile", "hopeless"]
        )
    assert levers.requests_at_pebble() == asked
    assert any(re.search(sentence, refusal) for refusal in levers.refusals())
    explained = await levers.penstock.a_json(
        "policy", "explain", fresh_name(), "--profile", "hopeless"
    )
    assert (explained["allowed"], explained["plan"]) == (False, None)
    assert {choice["obstacle"] for choice in explained["upstreams"]} == {"cap"}


async def test_too_long_certificate_is_withheld_revoked_and_its_profile_suspended(
    levers: Levers, lego: Lego
) -> None:
    """Where the facts are wrong the certificate itself is looked at, and a person has to resume."""
    penstock, name = levers.penstock, fresh_name()
    with pytest.raises(ClientFailed, match=r"s past the 7d cap of profile 'lied' \(\S+:\d+\)"):
        await lego.run_http([name], http_port=levers.client_port, options=["--profile", "lied"])

    # The order ends first, and the certificate is revoked by a job of its own.
    shown = await levers.order_with(name, "certificate-revoked")
    assert (shown["lever"], shown["status"], shown["certificate"]) == ("verify", "invalid", None)
    assert "past the 7d cap of profile 'lied'" in shown["error"]["detail"]
    kinds = [event["kind"] for event in shown["events"]]
    assert {"certificate-withheld", "upstream-suspended", "certificate-revoked"} <= set(kinds)
    assert "certificate-issued" not in kinds
    withheld = next(event for event in shown["events"] if event["kind"] == "certificate-withheld")
    assert [found["check"] for found in withheld["data"]["findings"]] == ["issued-end"]

    issued = levers.pebble.issued()[-1]
    assert int(withheld["data"]["serial"], 16) == int(issued.serial_hex, 16)
    status = levers.pebble.status(issued.serial_hex)
    assert (status.is_revoked, status.reason) == (True, 4)
    certificates = await penstock.a_json("cert", "list")
    (kept,) = [one for one in certificates if one["order"] == shown["order"]]
    assert kept["released"] is False
    await check_suspended_until_resumed(levers)


async def check_suspended_until_resumed(levers: Levers) -> None:
    """See that nothing is ordered from (upstream, profile), and what lifts that."""
    penstock = levers.penstock
    (suspended,) = (await penstock.a_json("status"))["suspensions"]
    assert (suspended["upstream"], suspended["profile"]) == ("lies", "long")
    assert "penstock_upstream_suspensions 1.0" in penstock.metrics()
    asked = levers.requests_at_pebble()
    async with levers.requester() as requester:
        await requester.register()
        refused = await requester.order(fresh_name(), profile="lied")
        assert (refused.status, refused.problem) == (403, "serverInternal")
        assert "is suspended until an operator resumes it" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        assert levers.requests_at_pebble() == asked
        other = await requester.order(fresh_name(), profile="short")
        assert other.status == 201

        reason = ("--reason", "Pebble was told to shorten its profile")
        wrong = penstock.run("upstream", "resume", "lies", *reason, status=1)
        assert wrong.stderr.startswith("penstock: error: ")
        await penstock.a_json("upstream", "resume", "lies", "--profile", "long", *reason)
        assert (await penstock.a_json("status"))["suspensions"] == []
        assert "penstock_upstream_suspensions 0.0" in penstock.metrics()
        again = await requester.order(fresh_name(), profile="lied")
        assert again.status == 201


async def test_operator_socket_knows_the_same_levers(levers: Levers) -> None:
    """`policy explain` tells before any order which lever would hold each profile's cap."""
    operator = Operator(levers.penstock.state / "operator.sock")
    found = {}
    for profile in PROFILES:
        explained = await operator.ask("policy_explain", names=[fresh_name()], profile=profile)
        found[profile] = explained["plan"] and explained["plan"]["lever"]
    assert found == {"asked": "ask", "short": "profile", "hopeless": None, "lied": "profile"}
