"""Whether a broker at work could go on with another configuration, found out beside it.

It changes nothing and asks nobody outside: what only a CA or Vault could tell shows when the next
turn starts, and the turn before is begun again if it does not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from broker.app.operator_tls import read_anchors
from broker.app.own_files import PairFiles, ask_for_clients, new_context
from broker.app.policies import ApartMaker, last_good
from broker.app.secrets import references
from broker.app.upstreams import read_anchor_file
from broker.config import Config
from broker.config.policies import read_now
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken
from broker.keys.keyfile import check_passphrase
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
        await asyncio.to_thread(_look_at_files, config, self._outside.config)
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


def _look_at_files(config: Config, running: Config) -> None:
    """Read the listener's pair, anchors, bundles, and secrets that lie elsewhere than in Vault.

    Raises:
        Broken: One of them is no use.
    """
    listener = config.listen.acme
    if listener.certificate is not None and listener.key is not None:
        PairFiles(listener.certificate, listener.key, b"").load()
    ask_for_clients(new_context(), listener.client_anchors)
    read_anchors(None if config.operators is None else config.operators.anchors)
    for path in _anchors(config):
        read_anchor_file(path)
    # Most are read when they are needed: what is amiss with one already is no fault of the change.
    known = set(_bundles(running))
    for path in _bundles(config):
        if path not in known:
            _read_bundle(path)
    for reference in references(config):
        if reference.scheme != "vault":
            secret = reference.resolve()
            if reference == config.keys.passphrase:
                check_passphrase(secret)


def _anchors(config: Config) -> Iterator[Path]:
    """Yield the anchors that a start reads."""
    named = [
        *(getattr(upstream, "anchors", None) for upstream in config.upstreams.values()),
        *(community.anchors for community in config.communities.values()),
        None if config.agents is None else config.agents.client_anchors,
    ]
    yield from (one for one in named if one is not None)


def _bundles(config: Config) -> Iterator[Path]:
    """Yield every bundle of CAs by which somebody outside is believed, wherever it stands."""
    waiting: list[object] = [config]
    while waiting:
        value = waiting.pop()
        match value:
            case BaseModel():
                if isinstance(bundle := getattr(value, "ca_bundle", None), Path):
                    yield bundle
                waiting += [getattr(value, name) for name in type(value).model_fields]
            case Mapping():
                waiting += value.values()
            case tuple():
                waiting += value


def _read_bundle(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Broken(f"CA bundle {path} cannot be used: {reason}") from error
