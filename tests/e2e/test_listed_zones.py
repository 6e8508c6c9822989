"""Names of listed zones at a real broker whose CAs log publicly: no such CA ever sees one.

The zone is one of public names: below ``.test`` every name is private anyway, and what a list adds
could not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.penstock import AcmeCa
from tests.e2e.front_door import COMMUNITIES, FrontDoor, running
from tests.e2e.requester import Client, check_refusal, fresh_name
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.unit.protocol.builders import make_csr

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

OPEN: Final = "example.org"
LISTED: Final = "secret.example.org"
INNER: Final = "inner.example.org"
"""A rule leaves its names one CA, though they are open."""

SECONDS: Final = 60.0
"""Longest wait for a CA; each takes about two seconds."""

PROFILES: Final = {"server": ("logs", "local"), "alone": ("logs",), "moves": ("quiet", "logs")}
"""Profiles with their CAs in order."""


def profile(*upstreams: str) -> dict[str, Any]:
    """Return a profile of these CAs."""
    return {
        "description": "TLS servers of the tests",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": name} for name in upstreams],
    }


@dataclass
class Place:
    """A broker, and two CAs of which one logs what it issues."""

    door: FrontDoor
    logs: Pebble
    quiet: Pebble

    def until(self, client: Client, order_url: str, status: str) -> None:
        """Wait until an order is so."""
        process.wait_until(
            lambda: client.post(order_url).json()["status"] == status, SECONDS, f"order is {status}"
        )

    def upstream_of(self, order_url: str) -> str:
        """Return the CA that an order is at."""
        query = "SELECT upstream FROM orders WHERE order_id = ?"
        ((found,),) = self.door.penstock.rows(query, order_url.rpartition("/")[2])
        return str(found)


def upstream(name: str, ca: Pebble, folder: Path, *, is_ct_logged: bool) -> AcmeCa:
    """Return a CA as configuration names it."""
    anchors = folder / f"{name}-root.pem"
    anchors.write_bytes(ca.root_pem())
    return AcmeCa(
        name=name,
        directory_url=ca.directory_url,
        ca_bundle=ca.ca_bundle,
        anchors=anchors,
        facts={"honours_not_after": True, "is_ct_logged": is_ct_logged},
        options={"communities": list(COMMUNITIES), "poll_interval": "100ms"},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run them."""
    folder = tmp_path_factory.mktemp("listed")
    trusted = {
        "eab": ["farm"],
        "names": [f"**.{OPEN}"],
        "profiles": list(PROFILES),
        "because": "these tests are about where an order goes",
    }
    rule = {
        "name": "inner",
        "because": "who works there trusts our own CA",
        "names": [f"**.{INNER}"],
        "upstreams": ["local"],
    }
    with ExitStack() as stack:
        believing = PebbleOptions(always_valid=True)
        logs, quiet = (
            stack.enter_context(
                Pebble(
                    folder / name,
                    validation_http_port=9,
                    dns_server="127.0.0.1:9",
                    options=believing,
                )
            )
            for name in ("logs", "quiet")
        )
        door = stack.enter_context(
            running(
                folder / "broker",
                upstreams=[
                    upstream("logs", logs, folder, is_ct_logged=True),
                    upstream("quiet", quiet, folder, is_ct_logged=False),
                ],
                profiles={name: profile(*upstreams) for name, upstreams in PROFILES.items()},
                policy={
                    "names": {"allow": [f"**.{OPEN}"]},
                    "ct": {"private_names": [f"**.{LISTED}"]},
                    "trusted": [trusted],
                    "rules": [rule],
                },
                limits={"finalize_wait": "200ms"},
            )
        )
        yield Place(door, logs, quiet)


def test_listed_name_goes_past_the_ca_that_logs(place: Place) -> None:
    """The next CA issues it; an open name goes to the first."""
    client = place.door.trusted()
    before, names = len(place.logs.issued()), (fresh_name(LISTED), fresh_name(OPEN))
    urls = []
    for name in names:
        url, order = client.new_order(name)
        assert client.finalize(order, make_csr([name])).status == 200
        place.until(client, url, "valid")
        urls.append(url)
    assert [place.upstream_of(url) for url in urls] == ["local", "logs"]
    assert len(place.logs.issued()) == before + 1
    assert names[1] in place.logs.log_text()
    assert names[0] not in place.logs.log_text()


def test_listed_name_is_refused_where_every_ca_logs(place: Place) -> None:
    """Beside an open name as much as alone, and that CA is never asked."""
    client, private = place.door.trusted(), fresh_name(LISTED)
    says = f"'{private}' is a private name, and every upstream of profile 'alone' writes names to"
    for names in ([private], [fresh_name(OPEN), private]):
        refused = client.order(*names, profile="alone")
        check_refusal(refused, "rejectedIdentifier", 400, says)
    assert private not in place.logs.log_text()
    assert client.order(fresh_name(OPEN), profile="alone").status == 201


def test_rule_leaves_names_one_ca(place: Place) -> None:
    """What it does not speak of goes to the first that the profile has."""
    client = place.door.trusted()
    urls = [client.new_order(fresh_name(zone))[0] for zone in (INNER, OPEN)]
    assert [place.upstream_of(url) for url in urls] == ["local", "logs"]


# The CA that does not log is gone afterwards; no other test asks it.
def test_listed_name_never_moves_to_the_ca_that_logs(place: Place) -> None:
    """Its CA dies under two orders: the open one goes on at the next CA, the private one waits."""
    client = place.door.trusted()
    before, names = len(place.logs.issued()), (fresh_name(LISTED), fresh_name(OPEN))
    made = []
    for name in names:
        reply = client.order(name, profile="moves")
        assert (reply.status, reply.json()["status"]) == (201, "ready"), reply.body
        made.append((reply.one("Location"), reply.json()))
    private, public = (url for url, _ in made)
    assert [place.upstream_of(url) for url in (private, public)] == ["quiet", "quiet"]
    place.quiet.kill()
    for name, (_, order) in zip(names, made, strict=True):
        assert client.finalize(order, make_csr([name])).json()["status"] == "processing"
    place.until(client, public, "valid")
    assert place.upstream_of(public) == "logs"
    # Whoever asks once that CA is known to be away waits for it, too.
    later = client.order(fresh_name(LISTED), profile="moves")
    assert later.status == 201
    for url in (private, later.one("Location")):
        assert place.upstream_of(url) == "quiet"
        assert client.post(url).json()["status"] in {"processing", "ready"}
    assert len(place.logs.issued()) == before + 1
    assert LISTED not in place.logs.log_text()
