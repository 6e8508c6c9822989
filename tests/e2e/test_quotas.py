"""Quotas of a policy and limits of a CA at a real broker: what each counts, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.deployments.penstock import AcmeCa
from tests.e2e.front_door import COMMUNITIES, FrontDoor, running
from tests.e2e.requester import TRUSTED_ZONE, Client, Reply, check_refusal, fresh_name
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.unit.protocol.builders import make_csr

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

ELSEWHERE: Final = ("example.net", "example.com")
"""Other registered domains than that of the trusted zone."""

SECONDS: Final = 60.0
"""Longest wait for the CA; it takes about two seconds."""

DAY: Final = 24 * 3600

KINDS: Final = ("requester", "names", "domain", "upstream", "community")

CAS: Final[dict[str, dict[str, Any]]] = {
    "counted": {"orders": {"rate": "2/1d", "kept_for_renewals": 0.5}},
    "narrow": {"certificates": {"below_domain": {"rate": "1/7d"}}},
}
"""One CA under two names, each with a limit of its own."""


def domain(kind: str) -> str:
    """Return the domain of the names that one rule speaks of."""
    return f"{kind}.{TRUSTED_ZONE}"


def abroad(kind: str) -> str:
    """Return the same below another registered domain."""
    return f"{kind}.{ELSEWHERE[0]}"


RULES: Final[list[dict[str, Any]]] = [
    *(
        {
            "name": f"per-{kind}",
            "names": [f"**.{domain(kind)}", f"**.{abroad(kind)}"],
            "quotas": [{"per": kind, "limit": "1/1d"}],
        }
        for kind in KINDS
    ),
    {
        "name": "kept",
        "names": [f"**.{domain('kept')}"],
        "quotas": [{"per": "requester", "limit": "4/7d", "kept_for_renewals": 0.5}],
    },
]


def profile(upstream: str) -> dict[str, Any]:
    """Return a profile of one CA."""
    return {
        "description": "TLS servers of the tests",
        "cap": "90d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": upstream}],
    }


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker whose policy has a quota of each kind, before its own CA and Pebble."""
    folder = tmp_path_factory.mktemp("quotas")
    trusted = {
        "eab": ["farm"],
        "names": [f"**.{zone}" for zone in (TRUSTED_ZONE, *ELSEWHERE)],
        "profiles": ["server", *CAS],
        "because": "these tests are about what is counted",
    }
    with ExitStack() as stack:
        pebble = stack.enter_context(
            Pebble(
                folder / "pebble",
                validation_http_port=9,
                dns_server="127.0.0.1:9",
                options=PebbleOptions(always_valid=True),
            )
        )
        anchors = folder / "root.pem"
        anchors.write_bytes(pebble.root_pem())
        cas = [
            AcmeCa(
                name=name,
                directory_url=pebble.directory_url,
                ca_bundle=pebble.ca_bundle,
                anchors=anchors,
                description="pebble",
                options={"communities": list(COMMUNITIES), "poll_interval": "100ms", **limits},
            )
            for name, limits in CAS.items()
        ]
        yield stack.enter_context(
            running(
                folder / "broker",
                upstreams=cas,
                profiles={"server": profile("local"), **{name: profile(name) for name in CAS}},
                policy={
                    "names": {"allow": [f"**.{zone}" for zone in ("example.test", *ELSEWHERE)]},
                    "trusted": [trusted],
                    "rules": [{"because": "a test is about it", **rule} for rule in RULES],
                },
                limits={"rates": {"new_accounts": "off"}, "finalize_wait": "200ms"},
            )
        )


def check_limited(reply: Reply, says: str, *, at_least: int = DAY // 2) -> None:
    """See that an order has to wait, for how long, and why."""
    check_refusal(reply, "rateLimited", 429, says)
    assert at_least < int(reply.one("Retry-After")) <= 7 * DAY


@pytest.mark.parametrize("kind", KINDS)
def test_quota_counts_what_it_says_and_nothing_else(door: FrontDoor, kind: str) -> None:
    """The second of the same account, names, domain, CA or community waits; another does not."""
    client, name = door.trusted(), fresh_name(domain(kind))
    assert client.order(name).status == 201
    second = name if kind == "names" else fresh_name(domain(kind))
    says = rf"orders under rule 'per-{kind}'.* are limited to 1/1d"
    check_limited(client.order(second), says)
    neighbour = door.trusted()
    if kind != "requester":
        check_limited(neighbour.order(second), says)
    others = {
        "requester": lambda: neighbour.order(second),
        "names": lambda: client.order(fresh_name(domain(kind))),
        "domain": lambda: client.order(fresh_name(abroad(kind))),
        "upstream": lambda: client.order(fresh_name(abroad(kind)), profile="narrow"),
        "community": lambda: door.trusted("other").order(second),
    }
    assert others[kind]().status == 201


def test_share_is_kept_for_renewals(door: FrontDoor) -> None:
    """New names get half of it; names that were certified before get the rest, then nobody."""
    client, name = door.trusted(), fresh_name(domain("kept"))
    obtain(client, name, "server")
    assert client.order(fresh_name(domain("kept"))).status == 201
    says = r"orders under rule 'kept' are limited to 4/7d and "
    new = client.order(fresh_name(domain("kept")))
    check_limited(new, says + "what is left is kept for renewals")
    obtain(client, name, "server")
    obtain(client, name, "server")
    check_limited(client.order(name), says + "none is left")


def obtain(client: Client, name: str, ca: str) -> None:
    """Have a certificate of a CA that takes its time."""
    reply = client.order(name, profile=ca)
    assert reply.status == 201, reply.body
    url = reply.one("Location")
    client.finalize(reply.json(), make_csr([name]))
    process.wait_until(lambda: client.post(url).json()["status"] == "valid", SECONDS, "it is valid")


def test_limit_of_our_account_at_a_ca(door: FrontDoor) -> None:
    """A community shares it, but for what is kept for renewals; another has its own account."""
    client, name = door.trusted(), fresh_name()
    obtain(client, name, "counted")
    neighbour = door.trusted()
    says = r"orders for upstream 'counted' are limited to 2/1d and "
    new = neighbour.order(fresh_name(), profile="counted")
    check_limited(new, says + "what is left is kept for renewals", at_least=DAY // 4)
    assert client.order(name, profile="counted").status == 201
    again = client.order(name, profile="counted")
    check_limited(again, says + "none is left", at_least=DAY // 4)
    assert neighbour.order(fresh_name()).status == 201
    assert door.trusted("other").order(fresh_name(), profile="counted").status == 201


def test_limit_of_a_ca_for_a_domain(door: FrontDoor) -> None:
    """The second name below it waits, whoever asks; another domain does not."""
    client = door.trusted()
    obtain(client, fresh_name(), "narrow")
    says = r"orders for upstream 'narrow' below 'example\.test' are limited to 1/7d"
    check_limited(door.trusted().order(fresh_name(), profile="narrow"), says, at_least=3 * DAY)
    assert client.order(fresh_name(ELSEWHERE[1]), profile="narrow").status == 201
