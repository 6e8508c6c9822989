"""Names at newOrder: refused one by one with what was expected, recorded, and nothing made."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.deployments.penstock import AcmeCa
from tests.e2e.front_door import COMMUNITIES, FrontDoor, running
from tests.e2e.requester import Client, check_refusal, fresh_name
from tests.fakes.hostile_ca import HostileCaProcess, Resource, Script
from tests.peers import process
from tests.unit.protocol.builders import VECTORS

pytestmark = pytest.mark.e2e

REJECTED, UNSUPPORTED = "rejectedIdentifier", "unsupportedIdentifier"

RECORD_SECONDS = 60.0
"""Longest wait for a refusal to be kept: it is written behind the answer."""

NAMES_POLICY: dict[str, Any] = {
    "names": {
        "allow": ["**.example.test", "**.example.internal", "*.one.test", "exact.test",
                  "**.xn--bcher-kva.test", "**.co.uk", "**.github.io"],
        "deny": ["secret.example.test", "**.locked.example.test"],
        "wildcards": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """One identifier, and how it is refused."""

    label: str
    value: str
    says: str
    kind: str = REJECTED
    type: str = "dns"

    def identifier(self) -> dict[str, str]:
        """Return it as it is asked for."""
        return {"type": self.type, "value": self.value}


def spelled() -> list[Name]:
    """Return the names that are none, from the vectors that the protocol's own tests use.

    Half of a character is left out: JSON with it is refused before anybody looks for a name.
    """
    stored = json.loads((VECTORS / "dns_names.json").read_text("utf-8"))["refused"]
    return [
        Name(one["id"], one["text"], one["because"])
        for one in stored
        if one["id"] != "lone surrogate"
    ]


SPELLED = spelled()
"""C7: what is no DNS name, or is not written as one."""

WIDE = [
    Name("public suffix", "co.uk", "is a public suffix, expected a name below 'co.uk'"),
    Name("wildcard over one", "*.co.uk", "covers a whole public suffix"),
    Name("wildcard over one in capitals", "*.CO.UK", "covers a whole public suffix"),
    Name("private suffix", "github.io", "is a public suffix"),
    Name("wildcard over a private one", "*.github.io", "covers a whole public suffix"),
    Name("suffix by wildcard rule", "anything.ck", "is a public suffix"),
    Name("wildcard over that", "*.anything.ck", "covers a whole public suffix"),
    Name("suffix with two hyphens", "xn--p1ai.xn--p1ai", "allowed by no rule|public suffix"),
    Name("japanese city", "*.city.kawasaki.jp", "allowed by no rule"),
    Name("japanese suffix", "*.kawasaki.jp", "public suffix|allowed by no rule"),
    Name("arpa", "*.in-addr.arpa", "public suffix"),
]
"""C7: what would cover names of other people; the rules of this policy allow it in vain."""

OUTSIDE = [
    Name("ending alike", "evil-example.test", "allowed by no rule"),
    Name("ending alike below", "www.evil-example.test", "allowed by no rule"),
    Name("ending without dot", "wwwexample.test", "allowed by no rule"),
    Name("allowed name in front", "www.example.test.evil.net", "allowed by no rule"),
    Name("allowed name in front, private", "a.example.internal.evil.net", "allowed by no rule"),
    Name("longer top level", "www.example.testing", "allowed by no rule"),
    Name("other top level", "www.example.com", "allowed by no rule"),
    Name("shorter", "www.xample.test", "allowed by no rule"),
    Name("the base itself", "example.test", "allowed by no rule"),
    Name("two labels where one is allowed", "a.b.one.test", "allowed by no rule"),
    Name("base where one label is allowed", "one.test", "allowed by no rule"),
    Name("wildcard below one label", "*.a.one.test", "allowed by no rule"),
    Name("below an exact name", "www.exact.test", "allowed by no rule"),
    Name("wildcard over an exact name", "*.exact.test", "allowed by no rule"),
    Name("A-label for another", "www.xn--bcher-kvb.test", "allowed by no rule|A-label"),
    Name("plain for an A-label", "www.bucher.test", "allowed by no rule"),
    Name("hyphen for a dot", "www-example.test", "allowed by no rule"),
    Name("somebody's site", "www.google.com", "allowed by no rule"),
    Name("router", "router.home.arpa", "allowed by no rule"),
    Name("metadata service", "metadata.google.internal", "allowed by no rule"),
    Name("in capitals", "WWW.EVIL-EXAMPLE.TEST", "allowed by no rule"),
    Name("denied", "secret.example.test", "is denied by policy"),
    Name("denied in capitals", "SECRET.Example.TEST", "is denied by policy"),
    Name("below a denied base", "a.b.locked.example.test", "is denied by policy"),
    Name("wildcard that takes a denied name in", "*.example.test", "is denied by policy"),
    Name("wildcard over a denied base", "*.locked.example.test", "is denied by policy"),
]
"""C8: labels are compared whole; deny wins over allow."""

TYPES = [
    Name("address", "192.0.2.1", "no rule within 192.0.2.0/24 allows it", REJECTED, "ip"),
    Name("address of IPv6", "2001:db8::1", "no rule within 2001:db8::/32", REJECTED, "ip"),
    Name("private address", "10.20.0.7", "is allowed by no rule", REJECTED, "ip"),
    Name("address in another spelling", "2001:DB8::1", "expected '2001:db8::1'", REJECTED, "ip"),
    Name("network", "10.20.0.0/16", "is not an IP address", REJECTED, "ip"),
    Name("no address", "localhost", "is not an IP address", REJECTED, "ip"),
    Name("address with leading zeros", "192.000.002.001", "is not an IP address", REJECTED, "ip"),
    Name("address with a zone", "fe80::1%eth0", "has a zone", REJECTED, "ip"),
    Name("mail address", "a@example.test", "is of type email, expected dns", UNSUPPORTED, "email"),
    Name("type in capitals", "a.example.test", "type 'DNS' is not supported", UNSUPPORTED, "DNS"),
    Name("type empty", "a.example.test", "type '' is not supported", UNSUPPORTED, ""),
    Name("permanent identifier", "1234", "is not supported", UNSUPPORTED, "permanent-identifier"),
    Name("attestation", "a", "is not supported", UNSUPPORTED, "remote-attestation"),
    Name("type of a kilobyte", "a.example.test", "is not supported", UNSUPPORTED, "x" * 1024),
    Name("name of 60,000 characters", "a." * 20_000 + "test", "40004 characters long"),
    Name("label of 5,000 in Unicode", "ä" * 5_000 + ".test", "5005 characters long"),
]
"""Other kinds of identifiers, and names that are made to be slow (CVE-2024-3651)."""

TABLE = [*SPELLED, *WIDE, *OUTSIDE, *TYPES]


@pytest.fixture(scope="module")
def names_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker of its own: refusals are counted here, and of a flood only a part is kept."""
    with running(tmp_path_factory.mktemp("names"), policy=NAMES_POLICY) as door:
        yield door


@pytest.fixture(scope="module")
def asker(names_door: FrontDoor) -> Client:
    """An account that proves its names."""
    return names_door.account()


def ask(client: Client, *identifiers: dict[str, str]) -> Any:
    """Ask for an order."""
    return client.post(client.url("new-order"), {"identifiers": list(identifiers)})


def good_name() -> dict[str, str]:
    """Return a name that the policy allows."""
    return {"type": "dns", "value": fresh_name("example.test")}


def shown(text: str) -> str:
    """Return the first 200 characters of what a problem document shows of a text."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:200])[:200]


IDS = [f"{number:03} {name.label}" for number, name in enumerate(TABLE)]


@pytest.mark.parametrize("name", TABLE, ids=IDS)
def test_name_is_refused_alone_and_in_company(
    names_door: FrontDoor, asker: Client, name: Name
) -> None:
    """Alone it is refused by its type; among good names one subproblem names it, and no other."""
    penstock = names_door.penstock
    counts, kept = penstock.counts(), len(penstock.refusals())
    document = check_refusal(ask(asker, name.identifier()), name.kind, 400, name.says)
    assert "identifier" not in document
    first, last = good_name(), good_name()
    document = check_refusal(ask(asker, first, name.identifier(), last), name.kind, 400, name.says)
    (subproblem,) = document["subproblems"]
    assert subproblem["type"] == document["type"]
    # What does not parse is told as it came, cut and escaped; what does is told as it is kept.
    value = subproblem["identifier"]["value"]
    assert value[:200] in {shown(name.value), shown(name.value).lower()}
    assert len(value) <= 300
    assert penstock.counts() == counts
    process.wait_until(lambda: len(penstock.refusals()) >= kept + 2, RECORD_SECONDS, "it is kept")
    assert ask(asker, first, last).status == 201


def test_the_table_is_long_enough() -> None:
    """At least 100 names are tried."""
    assert len(TABLE) >= 100


def test_every_bad_name_of_an_order_has_its_subproblem(
    names_door: FrontDoor, asker: Client
) -> None:
    """Ten names of which six are bad, in three ways: each is told, with its own type."""
    bad = [
        *(("dns", "secret.example.test"), ("dns", "evil.net"), ("ip", "192.0.2.1")),
        *(("dns", "*.co.uk"), ("dns", "a.locked.example.test"), ("email", "a@example.test")),
    ]
    identifiers = [{"type": kind, "value": value} for kind, value in bad]
    mixed = [*itertools.chain(*zip(identifiers, [good_name() for _ in bad], strict=True))]
    counts = names_door.penstock.counts()
    document = check_refusal(ask(asker, *mixed), "compound", 400, "")
    told = [each["identifier"] for each in document["subproblems"]]
    assert sorted(one["value"] for one in told) == sorted(value for _, value in bad)
    kinds = {each["identifier"]["value"]: each["type"] for each in document["subproblems"]}
    assert {value for value, kind in kinds.items() if kind.endswith(UNSUPPORTED)} == {
        "a@example.test"
    }
    assert names_door.penstock.counts() == counts


def test_refusal_is_recorded_with_who_what_and_why(names_door: FrontDoor, asker: Client) -> None:
    """The event names the account, the sentence and the line of the policy that decided."""
    value = fresh_name("evil.net")
    assert ask(asker, {"type": "dns", "value": value}).problem == REJECTED
    penstock = names_door.penstock

    def events() -> list[tuple[Any, ...]]:
        return penstock.rows(
            "SELECT actor, community, account_id, data FROM events WHERE data LIKE ?",
            f"%{value}%",
        )

    process.wait_until(lambda: len(events()) >= 2, RECORD_SECONDS, "the refusal is kept")
    account_id = (asker.kid or "").rpartition("/")[2]
    findings = []
    for actor, community, whose, data in events():
        assert (actor, community, whose) == (f"account:{account_id}", "default", account_id)
        findings += json.loads(data).get("findings", [])
    (finding,) = findings
    assert (finding["check"], finding["identifier"]) == ("name-allowed", value)
    assert re.fullmatch(r"(.*/)?default\.yaml:\d+", finding["rule"])
    listed = penstock.json("order", "list", "--account", account_id)
    assert value not in json.dumps(listed)


def test_good_name_is_kept_in_its_one_spelling(names_door: FrontDoor, asker: Client) -> None:
    """The twins: capitals are folded, A-labels stay, a wildcard's authorization is its base's."""
    for asked, kept in (
        ("WWW.Example.TEST", "www.example.test"),
        ("exact.test", "exact.test"),
        ("a.one.test", "a.one.test"),
        ("*.one.test", "*.one.test"),
        ("www.xn--bcher-kva.test", "www.xn--bcher-kva.test"),
        ("penstock.co.uk", "penstock.co.uk"),
        ("*.penstock.github.io", "*.penstock.github.io"),
        ("a-b--c.example.test", "a-b--c.example.test"),
    ):
        reply = ask(asker, {"type": "dns", "value": asked})
        assert reply.status == 201, reply.body
        assert reply.json()["identifiers"] == [{"type": "dns", "value": kept}]
        (url,) = reply.json()["authorizations"]
        authorization = asker.post(url).json()
        assert authorization["identifier"]["value"] == kept.removeprefix("*.")
        assert authorization.get("wildcard", False) == kept.startswith("*.")


def test_slow_names_cost_little(names_door: FrontDoor, asker: Client) -> None:
    """All names of the table together take under a second of the broker's processor."""
    before = names_door.penstock.processor_seconds()
    for name in TABLE:
        assert ask(asker, name.identifier()).problem == name.kind
    assert names_door.penstock.processor_seconds() - before < 1.0


def test_private_name_never_reaches_a_ca_that_publishes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """C9: it is refused before the CA hears of it; the twin, a public name, is ordered there."""
    folder = tmp_path_factory.mktemp("published")
    with HostileCaProcess(folder / "ca", Script()) as ca:
        upstream = AcmeCa(
            name="public",
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            options={"communities": list(COMMUNITIES)},
            facts={"is_ct_logged": True, "max_lifetime": "30d", "default_lifetime": "30d"},
        )
        policy = {"names": {"allow": ["**"], "wildcards": True}}
        with running(folder / "broker", upstreams=[upstream], policy=policy) as door:
            client = door.account()
            asked = ca.ledger().count(Resource.NEW_ORDER)
            for value in ("h.example.internal", "printer.local", "h.example.test", "a.b.corp"):
                reply = ask(client, {"type": "dns", "value": value})
                check_refusal(reply, REJECTED, 400, "private name.*Certificate Transparency")
            assert door.penstock.count("orders") == door.penstock.count("work") == 0
            assert ca.ledger().count(Resource.NEW_ORDER) == asked
            assert ask(client, {"type": "dns", "value": "www.penstock.example"}).status == 201
