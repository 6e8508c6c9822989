"""Whether a broker at work could go on with another configuration, found out beside it.

It changes nothing and asks nobody outside: what only a CA or Vault could tell shows when the next
turn starts, and the turn before is begun again if it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from broker.app.own_files import PairFiles
from broker.app.policies import ApartMaker, last_good
from broker.app.secrets import references
from broker.config import Config
from broker.config.policies import read_now
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Fault, Faults, KeyPath, Lines
from broker.upstreams.authority_state import read_state

if TYPE_CHECKING:
    from broker.app.outside import Outside

__all__ = ["ConfigTrial"]

FIRST_THE_CA: Final = (
    "name it under upstreams alone, run penstock ca init, then name it here; the chart makes it at "
    "the start of a pod by prepare.cas"
)
"""What to do about a CA that is needed and is not there."""


class ConfigTrial:
    """Tries configurations against what a broker at work has."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def judge(self, config: Config, lines: Lines) -> None:
        """Find whatever would keep a broker from serving by *config*.

        Raises:
            Faults: All that is wrong with it as it stands, or with policies under it.
            Broken: A file or a secret that it names cannot be used.
            Unreachable: It cannot be said now.
        """
        faults = [*self._fixed(config, lines), *await self._missing_cas(config, lines)]
        if faults:
            raise Faults(faults)
        await asyncio.to_thread(_look_at_files, config)
        await self._try_policies(config, lines)

    def _fixed(self, config: Config, lines: Lines) -> Iterator[Fault]:
        running = self._outside.config
        if config.state != running.state:
            yield lines.fault(
                ("state",),
                f"the broker works in {running.state}, and another directory is another broker",
                "put it back, or restart the broker if that is what you want",
            )

    async def _missing_cas(self, config: Config, lines: Lines) -> list[Fault]:
        """Find built-in CAs without which what works now would work no more."""
        running = self._outside.config
        wanted: list[tuple[str | None, str | None, KeyPath]] = [
            (
                config.listen.acme.issued_by,
                running.listen.acme.issued_by,
                ("listen", "acme", "from"),
            )
        ]
        if config.agents is not None:
            before = None if running.agents is None else running.agents.identity.upstream
            path: KeyPath = ("agents", "identity", "upstream")
            wanted.append((config.agents.identity.upstream, before, path))
        faults = []
        for name, before, path in wanted:
            if name is None or name == before:
                continue
            if not isinstance(config.upstreams.get(name), BuiltinUpstream):
                continue
            state = read_state(await self._outside.store.ca_members(name))
            if state is None or state.issuers is None:
                what = f"built-in CA '{name}' has not been made"
                faults.append(lines.fault(path, what, FIRST_THE_CA))
        return faults

    async def _try_policies(self, config: Config, lines: Lines) -> None:
        """Try the policies that lie there, or those that a start would go on with."""
        outside = self._outside
        maker = ApartMaker(config, outside.clock, lines)
        try:
            texts = await asyncio.to_thread(read_now, config)
            await maker.make(texts, outside.policies.loaded)
        except (Faults, Broken):
            if outside.policies.refusal is None or await last_good(config, outside.store) is None:
                raise


def _look_at_files(config: Config) -> None:
    """Read the listener's pair, and every secret that does not lie in Vault; raises Broken."""
    listener = config.listen.acme
    if listener.certificate is not None and listener.key is not None:
        PairFiles(listener.certificate, listener.key, b"").load()
    for reference in references(config):
        if reference.scheme != "vault":
            reference.resolve()
