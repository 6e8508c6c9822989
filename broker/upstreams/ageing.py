"""When the certificates of a built-in CA end, and when somebody has to do something about it.

A leaf never outlives its issuer.  So an issuing CA that is not replaced in time shortens what it
issues long before its end, and a root that is not replaced takes everything with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from broker.upstreams.authority import IssuerSet

__all__ = ["CaEnd", "ca_ends"]

TIME_TO_ROTATE: Final = timedelta(days=30)
"""How long before lifetimes get cut an ageing issuing CA is told of: a month to rotate it in."""

TIME_TO_REPLACE_ROOT: Final = timedelta(days=365)
"""How long before its end a root is told of: every verifier has to be given another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaEnd:
    """The end of one certificate of a built-in CA.

    Attributes:
        role: ``root``, ``current`` or ``next``; past issuers are to end.
        warning: What follows from the end and what to do, None while there is time.
    """

    role: str
    not_after: datetime
    warning: str | None


def ca_ends(issuers: IssuerSet, *, longest: timedelta, now: datetime) -> Sequence[CaEnd]:
    """Return when root, current and next issuer end, for profiles of *longest* lifetime."""
    current, following = issuers.current, issuers.next
    root = current.parent or current.certificate
    found = [
        _root_end(root, now),
        CaEnd(
            role="current",
            not_after=current.not_after,
            warning=_issuer_warning(issuers, longest=longest, now=now),
        ),
    ]
    if following is not None:
        found.append(CaEnd(role="next", not_after=following.not_after, warning=None))
    return found


def _root_end(root: x509.Certificate, now: datetime) -> CaEnd:
    end = root.not_valid_after_utc
    warning = None
    if now >= end - TIME_TO_REPLACE_ROOT:
        warning = (
            f"root ends {end:%Y-%m-%d} and everything below it with it; make another built-in CA "
            "and have its root trusted"
        )
    return CaEnd(role="root", not_after=end, warning=warning)


def _issuer_warning(issuers: IssuerSet, *, longest: timedelta, now: datetime) -> str | None:
    current = issuers.current
    cut_from = current.not_after - longest
    if now < cut_from - TIME_TO_ROTATE:
        return None
    step = "prepare" if issuers.next is None else "activate"
    return (
        f"issuing CA '{current.key_id}' ends {current.not_after:%Y-%m-%d}, and lifetimes are cut "
        f"from {cut_from:%Y-%m-%d} on; see penstock ca rotate {step}"
    )
