"""The twelve steps, told from facts; a failure is told as one."""

from dataclasses import replace
from typing import Any

import pytest

from broker.demo.serving import Seen
from broker.demo.story import STEPS, Facts, check_facts, tell
from tests.standards.sources import table_rows

DIGEST = "0123456789abcdef" * 4
KINDS = ("order-created", "challenge-responded", "order-finalized", "certificate-issued")

ORDER: dict[str, Any] = {
    "order": "o1",
    "names": ["www.demo.internal"],
    "status": "valid",
    "profile": "server",
    "upstream": "demo-ca",
    "cap": "10d",
    "lever": "ask",
    "csr_sha256": DIGEST,
    "decision": {"cap_rule": "default.yaml:27 profiles.server.cap", "tolerance_seconds": 60},
    "authorizations": [
        {"status": "valid", "proof": "challenge", "challenges": [{"type": "http-01"}]}
    ],
    "upstream_order": {"created": "2026-03-01T12:00:00Z"},
    "events": [
        {"kind": kind, "number": number, "at": "2026-03-01T12:00:00Z"}
        for number, kind in enumerate(KINDS, start=4)
    ],
}
CERTIFICATE: dict[str, Any] = {
    "serial": "5304a96e",
    "fingerprint": "f" * 64,
    "received": "2026-03-01T12:00:00Z",
    "not_after": "2026-03-11T12:00:00Z",
}
FACTS = Facts(
    order=ORDER,
    certificate=CERTIFICATE,
    upstream_order={"status": "valid", "csr_sha256": DIGEST},
    requests=8,
    refused=0,
    validation_port=5002,
    csr_sha256=DIGEST,
    key_matches=True,
    seen=Seen("TLSv1.3", "f" * 64, "hello over TLS"),
)


def ends(not_after: str) -> Facts:
    """Return the facts with another end of the certificate."""
    return replace(FACTS, certificate={**CERTIFICATE, "not_after": not_after})


def test_steps_are_those_of_the_journey() -> None:
    """As many, and the demonstration is over when the last one is told."""
    assert len(STEPS) == len(table_rows("docs/journey.md", "Step")) == 12
    assert [title for title, _ in tell(FACTS)] == [title for title, _ in STEPS]


def test_success_is_told_with_what_was_recorded() -> None:
    """Every step names something that can be looked up."""
    told = dict(tell(FACTS))
    assert told["the envelope is opened"].startswith("8 signed requests from certbot")
    assert "order o1 for www.demo.internal" in told["a new order is read"]
    assert "cap 10d by default.yaml:27" in told["policy answers"]
    assert "lever: ask" in told["policy answers"]
    assert "event 5" in told["the client answers its challenge"]
    assert "127.0.0.1:5002" in told["the validator goes and looks"]
    assert "proof: challenge" in told["the verdict"]
    assert "byte for byte the same" in told["the CSR travels upstream"]
    assert "within 10d" in told["what came back is read before anybody gets it"]
    assert "event 7" in told["certificate, valid order and event are kept at once"]
    assert "the very same certificate" in told["it is handed over and used"]
    assert check_facts(FACTS) == []


@pytest.mark.parametrize(
    ("facts", "shouted", "fault"),
    [
        pytest.param(
            replace(FACTS, csr_sha256="0" * 64),
            "NOT THE SAME",
            "is not the one that certbot signed",
            id="csr",
        ),
        pytest.param(
            replace(FACTS, upstream_order={"status": "valid", "csr_sha256": "0" * 64}),
            "NOT THE SAME",
            "is not the one that certbot signed",
            id="csr-upstream",
        ),
        pytest.param(replace(FACTS, key_matches=False), "NO", "for another key", id="key"),
        pytest.param(
            replace(FACTS, seen=replace(FACTS.seen, fingerprint="0" * 64)),
            "ANOTHER CERTIFICATE",
            "is not the one that was issued",
            id="certificate",
        ),
        pytest.param(
            ends("2026-03-11T12:01:01Z"),
            "PAST THE CAP OF 10d",
            "outlives the validity cap of 10d",
            id="cap",
        ),
    ],
)
def test_failure_is_told_as_one(facts: Facts, shouted: str, fault: str) -> None:
    """In the step where it shows, and at the end."""
    assert any(shouted in happened for _, happened in tell(facts))
    (found,) = check_facts(facts)
    assert fault in found


@pytest.mark.parametrize("name", ["order", "upstream_order"])
def test_order_that_is_not_valid_is_a_fault(name: str) -> None:
    """Whose it was is said."""
    changed: Any = {name: {**getattr(FACTS, name), "status": "processing"}}
    (fault,) = check_facts(replace(FACTS, **changed))
    assert fault.endswith("is processing, expected valid")


def test_tolerance_is_part_of_the_cap() -> None:
    """As the release gate has it: a CA counts from its own moment."""
    assert check_facts(ends("2026-03-11T12:01:00Z")) == []
