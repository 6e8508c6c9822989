"""The twelve steps of an order, told from what both brokers have recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from broker.demo.serving import Seen
from broker.policy.units import parse_duration

__all__ = ["Facts", "check_facts", "tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to tell."""

    order: Mapping[str, Any]
    """``order show`` of the broker."""
    certificate: Mapping[str, Any]
    """``cert show`` of the broker."""
    upstream_order: Mapping[str, Any]
    """``order show`` of the CA behind it, which is a Penstock too."""
    requests: int
    refused: int
    validation_port: int
    csr_sha256: str
    """Of the CSR that the client signed, taken from the client's own files."""
    key_matches: bool
    seen: Seen

    @property
    def is_same_csr(self) -> bool:
        """Return whether the CA received what the client signed."""
        received = (self.order["csr_sha256"], self.upstream_order["csr_sha256"])
        return received == (self.csr_sha256, self.csr_sha256)

    @property
    def is_within_cap(self) -> bool:
        """Return whether the certificate ends within the cap, counted from its receipt."""
        received = datetime.fromisoformat(self.certificate["received"])
        end = datetime.fromisoformat(self.certificate["not_after"])
        tolerance = timedelta(seconds=self.order["decision"]["tolerance_seconds"])
        return end - received <= parse_duration(self.order["cap"]) + tolerance

    @property
    def is_same_certificate(self) -> bool:
        """Return whether what was served is what was issued."""
        return bool(self.seen.fingerprint == self.certificate["fingerprint"])

    def event(self, kind: str) -> Mapping[str, Any]:
        """Return the last event of a kind in the order's history."""
        found: Mapping[str, Any] = {each["kind"]: each for each in self.order["events"]}[kind]
        return found


def tell(facts: Facts) -> Sequence[tuple[str, str]]:
    """Return twelve titles, each with what happened."""
    return [(title, happened(facts)) for title, happened in STEPS]


def check_facts(facts: Facts) -> Sequence[str]:
    """Return what of it was no success: a demonstration that lies is worth nothing."""
    faults = []
    if not facts.is_same_csr:
        faults.append("the CSR that reached the CA is not the one that certbot signed")
    if not facts.key_matches:
        faults.append("the certificate is for another key than the client's")
    if not facts.is_same_certificate:
        faults.append("the certificate that is served is not the one that was issued")
    if not facts.is_within_cap:
        faults.append(f"the certificate outlives the validity cap of {facts.order['cap']}")
    faults += [
        f"the order of {whose} is {order['status']}, expected valid"
        for whose, order in (("the client", facts.order), ("the broker", facts.upstream_order))
        if order["status"] != "valid"
    ]
    return faults


def _opened(facts: Facts) -> str:
    return (
        f"{facts.requests} signed requests from certbot, each nonce spent once, "
        f"{facts.refused} refused"
    )


def _read(facts: Facts) -> str:
    return f"order {facts.order['order']} for {facts.order['names'][0]}"


def _decided(facts: Facts) -> str:
    order = facts.order
    challenge = order["authorizations"][0]["challenges"][0]
    return (
        f"profile {order['profile']}, challenge {challenge['type']}, upstream "
        f"{order['upstream']}, cap {order['cap']} by {order['decision']['cap_rule']}; "
        f"lever: {order['lever']}"
    )


def _written(facts: Facts) -> str:
    created = facts.event("order-created")
    return f"event {created['number']} at {created['at']}"


def _answered(facts: Facts) -> str:
    return f"event {facts.event('challenge-responded')['number']}, the look is queued"


def _looked(facts: Facts) -> str:
    name = facts.order["names"][0]
    return f"http://{name}/.well-known/acme-challenge/… at 127.0.0.1:{facts.validation_port}"


def _judged(facts: Facts) -> str:
    authorization = facts.order["authorizations"][0]
    began = facts.order["upstream_order"]["created"]
    return (
        f"authorization {authorization['status']}, proof: {authorization['proof']}; "
        f"the upstream half began at {began}, before finalize"
    )


def _claimed(facts: Facts) -> str:
    number = facts.event("order-finalized")["number"]
    return f"event {number}, CSR {facts.order['csr_sha256'][:16]}…"


def _travelled(facts: Facts) -> str:
    what = "byte for byte the same" if facts.is_same_csr else "NOT THE SAME"
    return f"the CA received {facts.upstream_order['csr_sha256'][:16]}…: {what}"


def _inspected(facts: Facts) -> str:
    certificate, cap = facts.certificate, facts.order["cap"]
    held = f"within {cap}" if facts.is_within_cap else f"PAST THE CAP OF {cap}"
    return (
        f"ends {certificate['not_after']}, {held} of receipt at {certificate['received']}; "
        f"for the client's key: {'yes' if facts.key_matches else 'NO'}"
    )


def _kept(facts: Facts) -> str:
    number = facts.event("certificate-issued")["number"]
    return f"serial {facts.certificate['serial']}, event {number}"


def _used(facts: Facts) -> str:
    what = "the very same certificate" if facts.is_same_certificate else "ANOTHER CERTIFICATE"
    return (
        "a TLS server serves it, a client that trusts the demo's root alone accepts it "
        f"({facts.seen.protocol}): {facts.seen.answer!r}; {what}"
    )


STEPS: Final[tuple[tuple[str, Callable[[Facts], str]], ...]] = (
    ("the envelope is opened", _opened),
    ("a new order is read", _read),
    ("policy answers", _decided),
    ("order, authorization, challenge and event are written at once", _written),
    ("the client answers its challenge", _answered),
    ("the validator goes and looks", _looked),
    ("the verdict", _judged),
    ("the client finalizes, one caller wins", _claimed),
    ("the CSR travels upstream", _travelled),
    ("what came back is read before anybody gets it", _inspected),
    ("certificate, valid order and event are kept at once", _kept),
    ("it is handed over and used", _used),
)
"""The steps of docs/journey.md, each with what tells of it."""
