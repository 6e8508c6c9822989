"""What the health port tells: whether clients can be served, and what is wrong beside that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from broker.app.assembly import Broker
from broker.app.foresight import PolicyForesight
from broker.app.freezes import freeze_warning
from broker.app.identity import Identity
from broker.issuance import errors
from broker.web.health import HealthView, ReadyCheck

__all__ = ["health_view"]


def health_view(broker: Broker, identity: Identity, opened: asyncio.Event) -> HealthView:
    """Return what the health port finds out; *opened* is set once ACME is listened for."""
    outside = broker.outside

    async def store() -> str | None:
        try:
            await outside.store.suspensions()
        except (errors.Unreachable, errors.Broken) as error:
            return error.reason
        return await outside.store.check_writable()

    async def restored() -> str | None:
        return broker.recovery.standstill.reason()

    async def tls() -> str | None:
        return identity.fault() or (None if opened.is_set() else "not listening yet")

    return HealthView(
        checks={"store": store, "restored": restored, "tls": tls},
        warnings=_warnings(broker, identity),
        metrics=outside.telemetry.render,
    )


def _warnings(broker: Broker, identity: Identity) -> Mapping[str, ReadyCheck]:
    """Return what is told and makes nobody unready: taking the broker away would help nobody."""
    outside = broker.outside
    foresight = PolicyForesight(
        outside.config, outside.policies, outside.clock, outside.telemetry.registry
    )
    outside.telemetry.before_render.append(foresight.show)

    vault = outside.vault

    async def frozen() -> str | None:
        return await freeze_warning(broker.freezes)

    return {
        "own-certificate": _told(identity.warning),
        "accounts": _told(outside.account_health.warning),
        "cas": _told(outside.upstreams.breakers.warning),
        "configuration": _told(outside.lasting.warning),
        "frozen": frozen,
        "keys": _told(outside.keys.watch.warning),
        "policies": _told(outside.policies.warning),
        "policy-dates": _told(foresight.warning),
        "vault": _told(lambda: None if vault is None else vault.health().warning()),
    }


def _told(find: Callable[[], str | None]) -> ReadyCheck:
    """Return a check of what is known already."""

    async def check() -> str | None:
        return find()

    return check
