"""Freezes and owners put together: what knows them, and what is told of them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from broker.app.outside import Outside
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.freezes import Freezes
from broker.issuance.ownership import Ownership
from broker.issuance.records import JobKind

__all__ = ["FreezeMetrics", "freeze_warning", "make_freezes", "make_ownership"]

HELD_UP: Final = (JobKind.PREPARE, JobKind.FULFIL)
"""Jobs that wait for the end of a freeze."""

SHOWN: Final = 5
"""Freezes that the readiness page names; `penstock frozen` lists all."""


class FreezeMetrics:
    """How much is frozen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts = Gauge(
            "penstock_frozen",
            "Communities, accounts, EAB keys, nodes and upstreams that are frozen.",
            ("kind",),
            registry=registry,
        )
        for kind in FreezeKind:
            self._counts.labels(str(kind))

    async def show(self, freezes: Freezes) -> None:
        """Show what is frozen now."""
        found = Counter(place.kind for place in await freezes.in_force())
        for kind in FreezeKind:
            self._counts.labels(str(kind)).set(found[kind])


def make_freezes(outside: Outside, dispatcher: Dispatcher) -> Freezes:
    """Return what knows the freezes; after each change what waits is looked at again at once."""
    communities = outside.config.communities
    freezes = Freezes(
        outside.store,
        outside.store,
        outside.clock,
        policies=outside.policies,
        contacts={name: made.ask for name, made in communities.items() if made.ask},
    )
    freezes.on_changed = lambda: dispatcher.hurry_all(HELD_UP)
    metrics = FreezeMetrics(outside.telemetry.registry)

    async def show() -> None:
        with suppress(Unreachable, Broken):
            await metrics.show(freezes)

    outside.telemetry.before_render.append(show)
    return freezes


async def make_ownership(outside: Outside) -> Ownership:
    """Return what knows who answers for what, with what the configuration says of that."""
    declared = {
        (key.community, key.key_id): (key.owner, key.contact)
        for key in outside.config.external_account_bindings
        if key.owner
    }
    communities = outside.config.communities
    of_communities = {name: (one.owner, one.contact) for name, one in communities.items()}
    ownership = Ownership(
        outside.store, outside.clock, declared=declared, of_communities=of_communities
    )
    await ownership.keep_declared()
    return ownership


async def freeze_warning(freezes: Freezes) -> str | None:
    """Return what is frozen, for the readiness page; None: nothing is."""
    try:
        found = sorted((await freezes.in_force()).values(), key=lambda one: one.at)
    except (Unreachable, Broken) as error:
        return f"everything: it cannot be read what is ({error.reason})"
    if not found:
        return None
    shown = [f"{one} since {one.at:%Y-%m-%dT%H:%M:%SZ}" for one in found[:SHOWN]]
    more = len(found) - SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
