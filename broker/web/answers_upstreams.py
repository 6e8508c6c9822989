"""What commands about CAs and their limits answer, as types (see ``web.answers``)."""

# No deferred annotations: whether a member may be left out would not be seen through them.
from typing import TypedDict

from broker.web.answers import Time

__all__ = ["Quotas", "Upstream"]


class UpstreamAccountKey(TypedDict):
    """The key of an account of ours, and when it is changed."""

    id: str
    since: Time
    rotates: Time
    failures: int
    failed: Time
    reason: str | None
    not_retired: str | None


class UpstreamAccountLoss(TypedDict):
    """What is the matter with an account of ours."""

    cause: str
    why: str
    since: Time


class UpstreamAccount(TypedDict):
    """An account of ours at a CA."""

    upstream: str
    community: str
    url: str
    thumbprint: str
    registered: Time
    key: UpstreamAccountKey | None
    lost: UpstreamAccountLoss | None


class UpstreamSuspension(TypedDict):
    """A profile of an upstream that nothing is ordered under; null: its default."""

    upstream: str
    profile: str | None
    since: Time
    order: str
    rule: str


class Upstream(TypedDict):
    """An upstream with our accounts there and what is suspended."""

    upstream: str
    kind: str
    url: str
    communities: list[str]
    accounts: list[UpstreamAccount]
    suspensions: list[UpstreamSuspension]


class QuotaBucket(TypedDict):
    """What is left of one limit or quota."""

    of: str
    per: str
    subject: str
    community: str | None
    limit: str
    left: int
    full: Time


class QuotaHold(TypedDict):
    """A time before which a CA does not want to be asked."""

    upstream: str
    about: str
    until: Time
    since: Time
    reason: str


class UpstreamLeftAlone(TypedDict):
    """A CA that did not answer, and when somebody looks again."""

    upstream: str
    state: str
    since: Time
    next_look: Time
    reason: str


class Quotas(TypedDict):
    """What is left of limits and quotas, and how CAs stand."""

    buckets: list[QuotaBucket]
    holds: list[QuotaHold]
    left_alone: list[UpstreamLeftAlone]
