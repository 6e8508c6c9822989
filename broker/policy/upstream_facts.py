"""What each kind of upstream can do about lifetimes, as dated facts.

CAs change what they issue by the calendar, so a lifetime is never a number alone: it is a number
from a day on, read on a stated day from a stated source.  The facts are a file,
``policies/upstreams.yaml``; the configuration may override them for one upstream, whose operator
knows better.  Nothing here talks to an upstream.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field

from broker.policy.decisions import DatedChange, ProfileLifetime, UpstreamFacts
from broker.policy.published_limits import LimitForm, PublishedLimit
from broker.policy.units import Duration
from broker.policy.words import USAGE_OIDS, Usage
from broker.policy.yamlfile import FileModel, KeyPath, load_model, values_at
from broker.protocol.identifiers import IdentifierType

__all__ = [
    "BACKDATE_TOLERANCE",
    "FactsForm",
    "Overrides",
    "UnknownDescription",
    "UpstreamDescription",
    "UpstreamOverrides",
    "facts_for",
    "issued_on",
    "lifetime_on",
    "longest_on",
    "parse_upstream_facts",
    "profile_end",
    "usages_on",
]

BACKDATE_TOLERANCE: Final = timedelta(seconds=60)
"""How far past the cap a certificate may end, unless the facts or the configuration say more.

It covers clocks that differ and a CA that counts from its own time of signing.
"""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class LifetimeForm(FileModel):
    """A lifetime and the day from which on it holds."""

    valid_from: date = Field(
        default=date.min, alias="from", description="First day; none: for as long as is known."
    )
    lifetime: Duration


class ChangeForm(FileModel):
    """What holds from a day on."""

    valid_from: date = Field(
        default=date.min, alias="from", description="First day; none: for as long as is known."
    )
    max_lifetime: Duration | None = Field(
        default=None, description="Longest lifetime from that day on."
    )
    usages: tuple[Usage, ...] | None = Field(
        default=None, min_length=1, description="The only extended key usages from that day on."
    )
    by: _Text | None = Field(
        default=None, description="Who changes it; none: the CA, or the programme it stands in."
    )
    note: _Text | None = None


class ProgrammeForm(FileModel):
    """What a root programme, or a forum of CAs, demands of those that take part, by date."""

    as_of: date = Field(description="The day on which this was last read in the source.")
    source: _Text = Field(description="Where it was read.")
    note: _Text | None = None
    changes: tuple[ChangeForm, ...] = Field(min_length=1, description="What changes when.")


class UpstreamDescription(FileModel):
    """What is known of one kind of upstream."""

    as_of: date = Field(description="The day on which this was last read in the source.")
    source: _Text = Field(description="Where it was read.")
    note: _Text | None = None
    honours_not_after: bool = Field(description="Whether it issues to the notAfter of an order.")
    is_ct_logged: bool = Field(description="Whether names go into public CT logs.")
    min_lifetime: Duration | None = None
    max_lifetime: Duration | None = None
    default_lifetimes: tuple[LifetimeForm, ...] = Field(
        default=(), description="Lifetime without a profile; none: unknown."
    )
    profiles: dict[_Text, tuple[LifetimeForm, ...]] = Field(
        default={}, description="Lifetime of each profile."
    )
    backdate_tolerance: Duration = BACKDATE_TOLERANCE
    identifier_types: tuple[IdentifierType, ...] = Field(
        default=(IdentifierType.DNS,), description="Identifiers that it certifies."
    )
    lists_orders: bool = Field(
        default=True, description="Whether it may be asked for its list of our orders."
    )
    ip_profiles: tuple[_Text, ...] = Field(
        default=(), description="The only profiles with which it takes addresses; none: any."
    )
    programmes: tuple[_Name, ...] = Field(
        default=(), description="Root programmes of this file whose changes it follows."
    )
    changes: tuple[ChangeForm, ...] = Field(
        default=(), description="What the CA itself changes when."
    )
    profile_ends: dict[_Text, date] = Field(
        default={}, description="First day on which it no longer has a profile."
    )
    limits: tuple[LimitForm, ...] = Field(
        default=(), description="What it publishes about how much it issues."
    )


class FactsForm(FileModel):
    """The facts file."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["UpstreamFacts"]
    programmes: dict[_Name, ProgrammeForm] = Field(
        default={}, description="Root programmes, for descriptions to name."
    )
    descriptions: dict[_Name, UpstreamDescription]


class Overrides(Protocol):
    """What is known better about one upstream than its description tells; None: nothing."""

    @property
    def honours_not_after(self) -> bool | None: ...
    @property
    def min_lifetime(self) -> timedelta | None: ...
    @property
    def max_lifetime(self) -> timedelta | None: ...
    @property
    def default_lifetime(self) -> timedelta | None: ...
    @property
    def profiles(self) -> Mapping[str, timedelta]: ...
    @property
    def backdate_tolerance(self) -> timedelta | None: ...
    @property
    def is_ct_logged(self) -> bool | None: ...
    @property
    def identifier_types(self) -> Sequence[str] | None: ...
    @property
    def lists_orders(self) -> bool | None: ...


class UpstreamOverrides(FileModel):
    """Overrides as they are written in a file; every key may be left out."""

    honours_not_after: bool | None = None
    min_lifetime: Duration | None = None
    max_lifetime: Duration | None = None
    default_lifetime: Duration | None = Field(
        default=None, description="Lifetime without a profile."
    )
    profiles: dict[str, Duration] = Field(
        default={}, description="Lifetime of a profile; others keep what is known of them."
    )
    backdate_tolerance: Duration | None = None
    is_ct_logged: bool | None = None
    identifier_types: tuple[IdentifierType, ...] | None = None
    lists_orders: bool | None = None


class UnknownDescription(Exception):
    """An upstream names a description that the facts file does not have.

    The configuration has to be mended.
    """

    def __init__(self, description: str, known: Sequence[str]) -> None:
        self.description = description
        self.known = tuple(sorted(known))
        listed = ", ".join(self.known) or "none"
        super().__init__(f"there is no description '{description}', known are {listed}")


def parse_upstream_facts(text: str, *, source: str) -> Mapping[str, UpstreamDescription]:
    """Return the descriptions in *text* by name.

    Raises:
        Faults: Everything that is wrong with it.
    """
    form, _ = load_model(text, source, FactsForm, cross_check=_check_programmes)
    # A plain dict: it is handed to another process.
    return {name: _following(made, form.programmes) for name, made in form.descriptions.items()}


def _check_programmes(values: object) -> Iterator[tuple[KeyPath, str, str | None]]:
    known = [str(path[-1]) for path, _ in values_at(values, "programmes", "*")]
    for path, name in values_at(values, "descriptions", "*", "programmes", "*"):
        if isinstance(name, str) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "describe it in this file"
            yield path, f"there is no programme '{name}'", hint


def _following(
    description: UpstreamDescription, programmes: Mapping[str, ProgrammeForm]
) -> UpstreamDescription:
    """Return *description* with the changes of its programmes beside its own."""
    followed = [
        change if change.by is not None else change.model_copy(update={"by": f"programme '{name}'"})
        for name in description.programmes
        for change in programmes[name].changes
    ]
    return description.model_copy(update={"changes": (*description.changes, *followed)})


def facts_for(
    name: str,
    description: str,
    overrides: Overrides | None,
    descriptions: Mapping[str, UpstreamDescription],
) -> UpstreamFacts:
    """Return the facts of the upstream *name*: its description with *overrides* laid over it.

    Raises:
        UnknownDescription: There is no such description.
    """
    known = descriptions.get(description)
    if known is None:
        raise UnknownDescription(description, list(descriptions))
    over: Overrides = overrides or UpstreamOverrides()
    profiles = {profile: _steps(steps) for profile, steps in known.profiles.items()}
    profiles |= {profile: _always(lifetime) for profile, lifetime in over.profiles.items()}
    stated = frozenset(over.profiles)
    return UpstreamFacts(
        name=name,
        description=description,
        honours_not_after=_first(over.honours_not_after, known.honours_not_after),
        min_lifetime=over.min_lifetime or known.min_lifetime or timedelta(),
        max_lifetime=over.max_lifetime or known.max_lifetime,
        default_lifetimes=(
            _always(over.default_lifetime)
            if over.default_lifetime
            else _steps(known.default_lifetimes)
        ),
        profiles=MappingProxyType(profiles),
        backdate_tolerance=over.backdate_tolerance or known.backdate_tolerance,
        is_ct_logged=_first(over.is_ct_logged, known.is_ct_logged),
        identifier_types=frozenset(
            str(kind) for kind in over.identifier_types or known.identifier_types
        ),
        lists_orders=_first(over.lists_orders, known.lists_orders),
        ip_profiles=frozenset() if over.identifier_types else frozenset(known.ip_profiles),
        changes=_dated(known.changes),
        limits=tuple(PublishedLimit.of(form) for form in known.limits),
        profile_ends=MappingProxyType(
            {profile: day for profile, day in known.profile_ends.items() if profile not in stated}
        ),
    )


def lifetime_on(steps: Sequence[ProfileLifetime], at: datetime) -> timedelta | None:
    """Return the longest lifetime that may be in force at *at*, or None if nothing is known.

    On the day of a change and on the day before it, both lifetimes count: a CA switches at an
    hour of its own, and an order made the evening before is issued after.
    """
    today = at.astimezone(UTC).date()
    if _latest(steps, today) is None:
        return None
    in_force = [_latest(steps, today + timedelta(days=offset)) for offset in (-1, 0, 1)]
    return max(step.lifetime for step in in_force if step is not None)


def longest_on(facts: UpstreamFacts, at: datetime) -> tuple[timedelta, str] | None:
    """Return the longest lifetime that may be asked of an upstream at *at*, and who says so.

    A limit counts from the evening before its day: an order made then is issued after.  None: no
    dated limit is in force.
    """
    tomorrow = at.astimezone(UTC).date() + timedelta(days=1)
    limits = [
        (change.max_lifetime, change.by)
        for change in facts.changes
        if change.max_lifetime is not None and change.valid_from <= tomorrow
    ]
    return min(limits, default=None)


def issued_on(facts: UpstreamFacts, lifetime: timedelta | None, at: datetime) -> timedelta | None:
    """Return *lifetime*, or what a programme leaves of it once the limit surely holds."""
    if lifetime is None:
        return None
    limit = longest_on(facts, at - timedelta(days=2))
    return lifetime if limit is None else min(lifetime, limit[0])


def usages_on(facts: UpstreamFacts, at: datetime) -> frozenset[str] | None:
    """Return the extended key usages that an upstream certifies at *at*; None: not known.

    Of everyone who limits them the latest word counts, and all of them hold at once.
    """
    today = at.astimezone(UTC).date()
    latest: dict[str, DatedChange] = {}
    for change in facts.changes:
        if change.usages is not None and change.valid_from <= today:
            held = latest.get(change.by)
            if held is None or held.valid_from <= change.valid_from:
                latest[change.by] = change
    given = [change.usages for change in latest.values() if change.usages is not None]
    return frozenset.intersection(*given) if given else None


def profile_end(facts: UpstreamFacts, profile: str | None, at: datetime) -> date | None:
    """Return the day since which an upstream no longer has *profile*, or None while it has."""
    end = None if profile is None else facts.profile_ends.get(profile)
    return end if end is not None and end <= at.astimezone(UTC).date() else None


def _latest(steps: Sequence[ProfileLifetime], day: date) -> ProfileLifetime | None:
    begun = [step for step in steps if step.valid_from <= day]
    return max(begun, key=lambda step: step.valid_from, default=None)


def _steps(forms: Sequence[LifetimeForm]) -> tuple[ProfileLifetime, ...]:
    return tuple(ProfileLifetime(valid_from=f.valid_from, lifetime=f.lifetime) for f in forms)


def _dated(forms: Sequence[ChangeForm]) -> tuple[DatedChange, ...]:
    made = [
        DatedChange(
            valid_from=form.valid_from,
            by=form.by or "the CA",
            max_lifetime=form.max_lifetime,
            usages=None
            if form.usages is None
            else frozenset(USAGE_OIDS[usage] for usage in form.usages),
            note=form.note or "",
        )
        for form in forms
    ]
    return tuple(sorted(made, key=lambda change: change.valid_from))


def _always(lifetime: timedelta) -> tuple[ProfileLifetime, ...]:
    return (ProfileLifetime(valid_from=date.min, lifetime=lifetime),)


def _first(override: bool | None, known: bool) -> bool:
    return known if override is None else override
