"""How the certificates of a node stand."""

from datetime import timedelta

import pytest

from agents import wire
from agents.config import BundleSection
from agents.ready import check_ready, is_due, standings, statement
from agents.records import Record
from tests.fakes.agent_config import make_certificate, make_config
from tests.fakes.node_clock import NodeClock

NOW = NodeClock().now()
AT = int(NOW.timestamp())


def record(**given: object) -> Record:
    """Return a record of a certificate that is in place."""
    made = Record("www", generation=1, fingerprint="f", not_before=AT - 60, not_after=AT + 60)
    for name, value in given.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("given", "state", "is_ready"),
    [
        ({}, "installed", True),
        ({"is_seen": True}, "seen", True),
        ({"fault": "reload failed"}, "installed", True),
        ({"not_after": AT}, "ended", False),
        ({"fingerprint": None}, "missing", False),
    ],
    ids=["installed", "seen", "with-a-fault", "ended", "missing"],
)
def test_a_node_is_ready_when_each_certificate_is_in_place(
    given: dict[str, object], state: str, is_ready: bool
) -> None:
    """A failed renewal does not take a node away that still serves a good certificate."""
    config = make_config([make_certificate("www")])
    found = record(**given)
    assert [one.state for one in standings(config, lambda _: found, NOW)] == [state]
    assert (check_ready(config, lambda _: found, NOW) == []) is is_ready


def test_a_node_that_wants_nothing_is_ready() -> None:
    """There is nothing to wait for."""
    assert check_ready(make_config(), Record, NOW) == []


@pytest.mark.parametrize(
    ("begun", "ends", "due"),
    [(60, 60, False), (79, 41, False), (81, 39, True), (60, -1, True)],
)
def test_a_certificate_is_due_at_two_thirds_of_its_life(begun: int, ends: int, due: bool) -> None:
    """One that has ended is, too."""
    assert is_due(record(not_before=AT - begun, not_after=AT + ends), NOW) is due


def test_nothing_there_is_neither_due_nor_not() -> None:
    """needs-renewal has an exit code of its own for it."""
    assert is_due(Record("www"), NOW) is None


def test_the_statement_is_one_that_the_broker_can_read() -> None:
    """Of what is wanted and of what is there; members without a value are left out."""
    config = make_config(
        [make_certificate("www", profile="server"), make_certificate("mail")],
        bundles=(BundleSection(name="anchors", file="/certificates/anchors.pem"),),
    )
    records = {"www": record(is_seen=True), "mail": Record("mail")}
    body = statement(config, records.__getitem__, lambda _: 4, instance="i", agent="0.1")
    wire.parse_message({"id": "m", "kind": "stated", "body": body})
    assert body["bundles"] == [{"name": "anchors", "version": 4}]
    assert body["certificates"] == [
        {
            "name": "www",
            "names": ["www.example.test"],
            "key_kind": "ec-p256",
            "profile": "server",
            "fingerprint": "f",
            "not_after": AT + 60,
            "generation": 1,
            "is_seen": True,
        },
        {
            "name": "mail",
            "names": ["mail.example.test"],
            "key_kind": "ec-p256",
            "generation": 0,
            "is_seen": False,
        },
    ]


def test_how_it_stands_is_told_as_json() -> None:
    """With times that people read."""
    (one,) = standings(make_config([make_certificate("www")]), lambda _: record(), NOW)
    assert one.document()["not_after"] == (NOW + timedelta(seconds=60)).isoformat()


@pytest.mark.parametrize(
    ("given", "waits", "why"),
    [
        ({}, "not the broker: certificate has expired", "not the broker: certificate has expired"),
        ({}, "", "the broker is reached and has not asked for a CSR yet"),
        ({"asked_csr": "c"}, "", "the broker has its CSR and has not sent the certificate yet"),
        ({"fault": "names are refused"}, "", "names are refused"),
        ({"fault": "names are refused"}, "the broker is away: no route", "names are refused"),
    ],
    ids=["connection", "reached", "asked", "refused", "refused-then-away"],
)
def test_a_node_that_is_not_ready_says_why(given: dict[str, object], waits: str, why: str) -> None:
    """The nearest reason that is known; a node that is ready says nothing of it."""
    config = make_config([make_certificate("www")])
    found = record(fingerprint=None, **given)
    assert check_ready(config, lambda _: found, NOW, waits) == [
        f"certificate 'www' is missing: {why}"
    ]
    assert check_ready(config, lambda _: record(**given), NOW, waits) == []
