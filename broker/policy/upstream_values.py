"""What is known of one upstream on any day, as values that decisions look at.

``upstream_facts`` makes them of a file and the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from broker.policy.published_limits import PublishedLimit

__all__ = ["DatedChange", "ProfileLifetime", "UpstreamFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLifetime:
    """A lifetime that holds from a date on."""

    valid_from: date
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedChange:
    """What holds for an upstream from a day on, by its own word or a root programme's."""

    valid_from: date
    by: str
    """Who changes it, such as ``programme 'chrome'``, for sentences."""
    max_lifetime: timedelta | None = None
    """Longest lifetime from that day on; None: no change."""
    usages: frozenset[str] | None = None
    """The only extended key usages from that day on, as dotted OIDs; None: no change."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFacts:
    """The dated description of what one upstream can do, as of its source's date."""

    name: str
    """The upstream's name in the configuration."""
    description: str
    """Name of the description in the facts file, such as ``lets-encrypt``."""
    honours_not_after: bool
    min_lifetime: timedelta
    max_lifetime: timedelta | None
    """Longest lifetime it grants when asked; None: no known limit."""
    default_lifetimes: tuple[ProfileLifetime, ...]
    """Lifetime when no profile is named; empty: unknown."""
    profiles: Mapping[str, tuple[ProfileLifetime, ...]]
    backdate_tolerance: timedelta
    is_ct_logged: bool
    """Whether it writes names to public Certificate Transparency logs."""
    identifier_types: frozenset[str] = frozenset({"dns"})
    lists_orders: bool = True
    """Whether it may be asked for our account's orders (RFC 8555 §7.1.2.1); False for a CA that
    takes harm from the question."""
    ip_profiles: frozenset[str] = frozenset()
    """The only profiles with which it takes addresses; empty: with any, and with none named."""
    changes: tuple[DatedChange, ...] = ()
    """What root programmes and the CA itself changed or will change, by date."""
    profile_ends: Mapping[str, date] = field(default_factory=dict)
    """First day on which it no longer has a profile."""
    limits: tuple[PublishedLimit, ...] = ()
    """What it publishes about how much it issues, by date."""
    is_builtin: bool = False
    """Whether it is a CA of our own, whose certificates cost nobody's limits."""
