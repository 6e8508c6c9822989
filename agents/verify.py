"""The end-to-end half of the tunnel: what the node itself holds a certificate to.

Nothing is installed that did not pass here, whoever sent it.  The node's own configuration names
the anchors and the longest lifetime; the broker can only ask for less.  Reading and signatures are
the child's; the judgement is made here, of facts and a time that is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agents.child import ChildFault, run_child

__all__ = [
    "BEGIN_TOLERANCE",
    "Expectation",
    "Rejected",
    "Verified",
    "read_anchors",
    "verify_certificate",
    "verify_facts",
]

BEGIN_TOLERANCE: Final = timedelta(minutes=5)
"""How far in the future a certificate may begin: clocks of hosts differ by less, and most CAs date
the beginning back by an hour."""

CLOCK_WRONG: Final = timedelta(days=1)
"""From what distance on the node's clock is named as a likely cause."""

MAX_ANCHOR_BYTES: Final = 4 * 1024 * 1024
"""Largest file of anchors that is read, in bytes; a whole system store measures 230 kB."""


class Rejected(Exception):
    """The certificate is not what the node expects: nothing was touched, the old one stays."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a certificate has to be."""

    names: Sequence[str]
    """Exactly these, in any order."""
    spki_sha256: str
    """Of the node's own key."""
    now: datetime
    anchors_pem: str | None = None
    """Text of the node's own anchors; None: its configuration says that any CA will do, and only
    the chain's own signatures are looked at."""
    longest: Sequence[timedelta | None] = ()
    """Longest lifetimes: of the node, of the broker, of what was asked.  The least counts."""
    installed_not_before: datetime | None = None
    """When that which is installed begins; nothing older takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A certificate that is what the node expects, with its chain in order and no root in it."""

    chain_pem: str
    fingerprint: str
    spki_sha256: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key_kind: str
    key_usages: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    is_anchored: bool
    """Whether it leads to an anchor of the node's own file."""
    anchors_pem: str | None = None


def read_anchors(path: str | None) -> str | None:
    """Return the text of the node's file of anchors; without a path there is none.

    Raises:
        Rejected: It cannot be read: without its anchors nothing can be believed.
    """
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_ANCHOR_BYTES + 1)
    except OSError as error:
        raise Rejected(f"the anchors in {path} cannot be read: {error.strerror}") from None
    if len(octets) > MAX_ANCHOR_BYTES:
        raise Rejected(f"the anchors in {path} are past {MAX_ANCHOR_BYTES} bytes")
    return octets.decode("ascii", "replace")


def verify_certificate(chain_pem: str, expectation: Expectation) -> Verified:
    """Return the certificate, verified.

    Raises:
        Rejected: It is not what is expected; ``reason`` says what was and what is.
    """
    work = {
        "do": "inspect",
        "pem": chain_pem,
        "anchors": expectation.anchors_pem,
        "at": int(expectation.now.timestamp()),
        "early_seconds": int(BEGIN_TOLERANCE.total_seconds()),
    }
    try:
        found = run_child(work)
    except ChildFault as fault:
        raise Rejected(fault.reason) from None
    return verify_facts(found, expectation)


def verify_facts(found: Mapping[str, Any], expectation: Expectation) -> Verified:
    """Return the certificate of which the child told the facts; raises Rejected."""
    leaf = found["certificates"][0]
    _check_subject(leaf, expectation)
    begins = _moment(leaf["not_before"])
    ends = _moment(leaf["not_after"])
    _check_times(begins, ends, expectation)
    if found["why"] is not None:
        raise Rejected(f"the chain does not lead to the node's anchors: {found['why']}")
    return Verified(
        chain_pem=str(found["chain_pem"]),
        fingerprint=str(leaf["fingerprint"]),
        spki_sha256=str(leaf["spki_sha256"]),
        names=tuple(leaf["names"]),
        not_before=begins,
        not_after=ends,
        key_kind=str(leaf["key_kind"]),
        key_usages=tuple(leaf["key_usages"]),
        extended_key_usages=tuple(leaf["extended_key_usages"]),
        is_anchored=bool(found["is_verified"]),
        anchors_pem=expectation.anchors_pem,
    )


def _check_subject(leaf: Mapping[str, Any], expectation: Expectation) -> None:
    if leaf["is_ca"]:
        raise Rejected("the certificate is a CA's")
    if leaf["spki_sha256"] != expectation.spki_sha256:
        raise Rejected(
            f"the certificate is for another key: {leaf['spki_sha256'][:16]}…, "
            f"expected {expectation.spki_sha256[:16]}…"
        )
    wanted = {_canonical(name) for name in expectation.names}
    seen = {_canonical(str(name)) for name in leaf["names"]}
    if seen != wanted:
        lacking, more = sorted(wanted - seen), sorted(seen - wanted)
        raise Rejected(f"the names differ: {lacking} are missing, {more} are too many"[:400])
    for common in leaf["common_names"]:
        if "." in common and " " not in common and _canonical(common) not in wanted:
            raise Rejected(f"the common name {common[:80]!r} is not among the names")


def _canonical(name: str) -> str:
    import ipaddress  # the resident process has it only while one is checked

    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name if "@" in name else name.lower()


def _check_times(begins: datetime, ends: datetime, expectation: Expectation) -> None:
    now = expectation.now
    if begins > now + BEGIN_TOLERANCE:
        raise Rejected(f"the certificate begins in {_span(begins - now)}" + _hint(begins - now))
    if ends <= now:
        raise Rejected(f"the certificate ended {_span(now - ends)} ago" + _hint(now - ends))
    caps = [one for one in expectation.longest if one is not None]
    # Counted from now or from its beginning, whichever is later: CAs date beginnings back, and one
    # that was fetched late has less left.
    lasts = ends - max(begins, now)
    if caps and lasts > min(caps) + BEGIN_TOLERANCE:
        raise Rejected(
            f"the certificate lasts {_span(lasts)} from now, past the {_span(min(caps))} allowed"
        )
    installed = expectation.installed_not_before
    if installed is not None and begins < installed:
        earlier = _span(installed - begins)
        raise Rejected(
            f"the certificate is older than the installed one: it begins {earlier} before"
        )


def _hint(distance: timedelta) -> str:
    if distance < CLOCK_WRONG:
        return ""
    return f"; if it was issued just now, this host's clock is wrong by about {distance.days} d"


def _span(distance: timedelta) -> str:
    seconds = int(distance.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
