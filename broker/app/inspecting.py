"""What ``penstock check`` reads from the store, beside a running broker or without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from broker.app.policies import last_good
from broker.clock import SystemClock
from broker.config import Config
from broker.config.model import DATABASE
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.policy_ports import LoadedPolicies
from broker.issuance.ports import Clock
from broker.storage.sqlite import SqliteStore
from broker.upstreams.ageing import ca_ends
from broker.upstreams.authority_state import read_state

__all__ = ["DATABASE", "inspect_authorities", "kept_policies"]


async def inspect_authorities(config: Config, clock: Clock | None = None) -> Sequence[str]:
    """Return a sentence for each certificate of a built-in CA that nears its end.

    Nothing is changed; without a *clock* it is the system's.
    """
    now = (clock or SystemClock()).now()
    built_in = {
        name: max(profile.max_lifetime for profile in upstream.profiles.values())
        for name, upstream in config.upstreams.items()
        if isinstance(upstream, BuiltinUpstream)
    }
    store_file = config.state / DATABASE
    if not built_in or not _is_there(store_file):
        return ()
    found = []
    try:
        store = await SqliteStore.open(store_file, exclusive=False)
        try:
            for name, longest in built_in.items():
                state = read_state(await store.ca_members(name))
                if state is None or state.issuers is None:
                    continue
                ends = ca_ends(state.issuers, longest=longest, now=now)
                found += [f"built-in CA '{name}': {end.warning}" for end in ends if end.warning]
        finally:
            await store.close()
    except (Broken, Unreachable) as error:
        found.append(f"built-in CAs were not looked at: {error.reason}")
    return found


async def kept_policies(config: Config) -> LoadedPolicies | None:
    """Return the policies that a broker would start with if those that lie there are unfit.

    None where there are none, or where that cannot be said without changing the store.
    """
    store_file = config.state / DATABASE
    if not _is_there(store_file):
        return None
    try:
        store = await SqliteStore.open(store_file, exclusive=False)
        try:
            return await last_good(config, store)
        finally:
            await store.close()
    except (Broken, Unreachable):
        return None


def _is_there(path: Path) -> bool:
    """Return whether there is a store that this user may see."""
    try:
        return path.exists()
    except OSError:
        return False
