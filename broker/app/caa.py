"""What CAA records may call each upstream: identities, our account there, how it validates us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.app.settings import account_url, validation_settings
from broker.config import Config
from broker.config.upstreams import AcmeUpstream as AcmeSection
from broker.config.upstreams import BuiltinUpstream as BuiltinSection
from broker.issuance import ports
from broker.issuance.caa import CaaRooms, CaaWatch
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.ports import UpstreamStore
from broker.policy.names import PatternSet
from broker.protocol.caa import CaaIssuer
from broker.protocol.challenges import ChallengeType, is_challenge_for
from broker.protocol.identifiers import Identifier
from broker.protocol.resources import Directory
from broker.validation.caa import CaaLookups

__all__ = ["ConfiguredIssuers", "Directories", "caa_watch"]


class Directories(Protocol):
    """The directories of the ACME upstreams."""

    def known_directory(self, upstream: str) -> Directory | None:
        """Return the directory as it was last read, or None."""
        ...

    async def directory(self, upstream: str) -> Directory:
        """Return the directory, read where need be; raises Unreachable or Broken."""
        ...


class Upstreams(ports.Upstreams, Directories, Protocol):
    """The upstreams that configuration names, with their directories."""


def caa_watch(
    config: Config,
    *,
    upstreams: Upstreams,
    policies: ports.Policies,
    store: ports.Store,
    dispatcher: Dispatcher,
    clock: ports.Clock,
) -> CaaWatch:
    """Return what looks at CAA, through each community's own resolvers."""
    return CaaWatch(
        CaaRooms(
            looker=CaaLookups(validation_settings(config)),
            issuers=ConfiguredIssuers(config, directories=upstreams, store=store),
            upstreams=upstreams,
            policies=policies,
            orders=store,
            accounts=store,
            log=store,
            dispatcher=dispatcher,
            clock=clock,
            account_url=account_url(config),
        )
    )


class ConfiguredIssuers:
    """Implements ``issuance.caa.CaaIssuers`` over the configuration and the CAs' directories.

    What the configuration says of a CA's identities replaces what the CA says.  The built-in CA is
    called what the communities' own directories say, unless it is configured otherwise.
    """

    def __init__(self, config: Config, *, directories: Directories, store: UpstreamStore) -> None:
        self._config = config
        self._directories = directories
        self._store = store
        self._solved = {
            name: tuple((ChallengeType(one.challenge), PatternSet.parse(one.names)) for one in made)
            for name, made in (
                (name, upstream.solvers)
                for name, upstream in config.upstreams.items()
                if isinstance(upstream, AcmeSection)
            )
        }

    def is_identified(self, upstream: str, community: str) -> bool:
        """Return whether an identity is known, from the configuration or the CA's directory."""
        if self._configured(upstream, community):
            return True
        directory = self._directories.known_directory(upstream)
        return directory is not None and bool(directory.meta.caa_identities)

    async def caa_issuer(
        self, upstream: str, community: str, identifiers: Sequence[Identifier]
    ) -> CaaIssuer:
        """Return how records may describe *upstream*.

        Raises:
            Unreachable: Its directory cannot be had now.
            Broken: Its directory is none.
        """
        identities = self._configured(upstream, community)
        if isinstance(self._config.upstreams[upstream], BuiltinSection):
            return CaaIssuer(identities=frozenset(identities))
        if not identities:
            directory = await self._directories.directory(upstream)
            identities = tuple(one.lower() for one in directory.meta.caa_identities)
        account = await self._store.find_upstream_account(upstream, community)
        return CaaIssuer(
            identities=frozenset(identities),
            account_uri=None if account is None else account.account_url,
            methods=self._methods(upstream, identifiers),
        )

    def _configured(self, upstream: str, community: str) -> tuple[str, ...]:
        section = self._config.upstreams[upstream]
        if section.caa_identities or isinstance(section, AcmeSection):
            return section.caa_identities
        return self._config.communities[community].caa_identities

    def _methods(
        self, upstream: str, identifiers: Sequence[Identifier]
    ) -> Mapping[Identifier, frozenset[str]]:
        """Return the challenges that our solvers answer, one of which the CA validates by."""
        return {
            identifier: frozenset(
                str(kind)
                for kind, names in self._solved[upstream]
                if is_challenge_for(kind, identifier)
                and names.covering(identifier.value) is not None
            )
            for identifier in identifiers
        }
