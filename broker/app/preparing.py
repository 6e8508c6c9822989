"""What is done before the broker serves: the store as this version needs it, and built-in CAs.

All of it is done once; a second run changes nothing.  In a cluster this is what an init container
runs, so that no probe has to know how long a migration takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from broker.app.assembly import Broker, assembled
from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken
from broker.issuance.events import Actor

__all__ = ["prepare"]

log = structlog.get_logger("penstock")


async def prepare(
    config: Config, wanted: Mapping[str, Sequence[str]], actor: Actor
) -> Sequence[str]:
    """Bring the store up to date, make those CAs that are not there, and return their names.

    *wanted* has the suffixes that each may certify; none: what the policies of its communities
    allow.

    Raises:
        StoreLocked: A broker works on the store.
        Broken: Something is wrong with the configuration, the store, or what is wanted.
        Unreachable: The disk is full or failing, or Vault is away.
    """
    for upstream in wanted:
        if not isinstance(config.upstreams.get(upstream), BuiltinUpstream):
            raise Broken(f"no upstream of kind built-in is called '{upstream}'")
    async with assembled(config) as broker:
        return [
            upstream
            for upstream, suffixes in wanted.items()
            if await _is_made_now(broker, upstream, suffixes, actor)
        ]


async def _is_made_now(
    broker: Broker, upstream: str, suffixes: Sequence[str], actor: Actor
) -> bool:
    """Make the CA unless it is there, were it only half; say whether it was made."""
    if await broker.outside.authorities.is_begun(upstream):
        return False
    await broker.operations.ca_init(
        actor=actor, upstream=upstream, permitted_names=list(suffixes) or None
    )
    log.info("built-in CA made", upstream=upstream)
    return True
