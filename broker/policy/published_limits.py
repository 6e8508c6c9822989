"""What CAs publish about how much they issue, as dated facts.

A limit is a number from a day on, read on a stated day in a stated source, like a lifetime.  The
facts file has those of CAs that publish any; what an operator was granted beyond stands in the
configuration.  Nothing here counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from broker.policy.units import Rate, RateText
from broker.policy.yamlfile import FileModel

__all__ = ["Exemption", "LimitForm", "LimitPer", "PublishedLimit", "limits_on"]

CONFIGURATION: Final = "configuration"
"""Where a limit stands that an operator knows better."""

_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class LimitPer(StrEnum):
    """What a CA counts by.

    ACCOUNT: orders of one account.  NAMES: certificates for the exact set of identifiers, whoever
    ordered them.  DOMAIN: certificates with a name below a registered domain, whoever ordered
    them.
    """

    ACCOUNT = "account"
    NAMES = "names"
    DOMAIN = "domain"


class Exemption(StrEnum):
    """Orders that a CA does not count.

    REPLACEMENTS: those that name what they replace (RFC 9773 §5).  SAME_NAMES: those for exactly
    the identifiers of a certificate that it issued before.
    """

    REPLACEMENTS = "replacements"
    SAME_NAMES = "same-names"


class LimitForm(FileModel):
    """A limit that a CA publishes."""

    per: LimitPer = Field(description="What it counts by: account, names or domain.")
    rate: RateText = Field(description="As many at once, and as many again in that time.")
    exempt: tuple[Exemption, ...] = Field(default=(), description="Orders that it does not count.")
    kept_for_renewals: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share that orders for new names leave to renewals."
    )
    valid_from: date = Field(
        default=date.min, alias="from", description="First day; none: for as long as is known."
    )
    source: _Text = Field(description="Where it was read, and of which day that text is.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLimit:
    """One limit of one CA."""

    per: LimitPer
    rate: Rate | None
    """None: nothing is counted, for an operator who was granted as much as he likes."""
    kept_for_renewals: float = 0.0
    exempt: frozenset[Exemption] = frozenset()
    valid_from: date = date.min
    source: str = CONFIGURATION

    @classmethod
    def of(cls, form: LimitForm) -> PublishedLimit:
        """Return what *form* says."""
        return cls(
            per=form.per,
            rate=form.rate,
            kept_for_renewals=form.kept_for_renewals,
            exempt=frozenset(form.exempt),
            valid_from=form.valid_from,
            source=form.source,
        )

    @property
    def floor(self) -> float:
        """Return how many tokens orders for new names leave."""
        return 0.0 if self.rate is None else self.rate.count * self.kept_for_renewals

    def granted(self, rate: Rate | None, kept_for_renewals: float | None) -> PublishedLimit:
        """Return the limit as an operator knows it better for his own account."""
        kept = self.kept_for_renewals if kept_for_renewals is None else kept_for_renewals
        return replace(
            self,
            rate=rate,
            kept_for_renewals=kept,
            valid_from=date.min,
            source=CONFIGURATION,
        )


def limits_on(limits: Sequence[PublishedLimit], at: datetime) -> tuple[PublishedLimit, ...]:
    """Return the limit of each kind that is in force at *at*; one that counts nothing is none."""
    today = at.astimezone(UTC).date()
    found = []
    for per in LimitPer:
        begun = [one for one in limits if one.per is per and one.valid_from <= today]
        newest = max(begun, key=lambda one: one.valid_from, default=None)
        if newest is not None and newest.rate is not None:
            found.append(newest)
    return tuple(found)
