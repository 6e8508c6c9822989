"""Limits put together: what CAs publish, what the configuration knows better, and the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from broker.config import Config
from broker.config.upstreams import AcmeUpstream
from broker.issuance.ports import Clock, Store
from broker.issuance.quotas import Quotas
from broker.issuance.renewal_budget import RenewalBudget
from broker.keys.suffixes import PackagedPublicSuffixes
from broker.policy.decisions import UpstreamFacts
from broker.policy.published_limits import LimitPer, PublishedLimit

__all__ = ["known_limits", "make_budget", "make_quotas"]


def known_limits(
    config: Config, facts: Mapping[str, UpstreamFacts]
) -> Callable[[str], Sequence[PublishedLimit]]:
    """Return what tells the limits of an upstream: the published ones, and in place of those of a
    kind what the configuration says of it."""

    def limits(upstream: str) -> Sequence[PublishedLimit]:
        section = config.upstreams.get(upstream)
        published = facts[upstream].limits if upstream in facts else ()
        granted = _granted(section, published) if isinstance(section, AcmeUpstream) else {}
        return (*(one for one in published if one.per not in granted), *granted.values())

    return limits


def _granted(
    section: AcmeUpstream, published: Sequence[PublishedLimit]
) -> Mapping[LimitPer, PublishedLimit]:
    granted = {}
    for per, made in (
        (LimitPer.ACCOUNT, section.orders),
        (LimitPer.NAMES, section.certificates.for_same_names),
        (LimitPer.DOMAIN, section.certificates.below_domain),
    ):
        if made is not None:
            known = next((one for one in published if one.per is per), None)
            known = known or PublishedLimit(per=per, rate=None)
            granted[per] = known.granted(made.rate, made.kept_for_renewals)
    return granted


def make_budget(
    config: Config, facts: Mapping[str, UpstreamFacts], store: Store, clock: Clock
) -> RenewalBudget:
    """Return what knows the limits of CAs."""
    return RenewalBudget(store, known_limits(config, facts), clock, PackagedPublicSuffixes())


def make_quotas(budget: RenewalBudget, store: Store, clock: Clock) -> Quotas:
    """Return what says which tokens an order takes."""
    return Quotas(
        store=store, budget=budget, suffixes=PackagedPublicSuffixes(), log=store, clock=clock
    )
