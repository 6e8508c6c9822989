"""All validators of all communities behind the one port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.issuance.errors import Broken
from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType, Failure, Observation, is_challenge_for
from broker.validation.dns01 import Dns01
from broker.validation.http01 import Http01
from broker.validation.resolver import LOOKUP_TIMEOUT, DnsResolver, Resolver
from broker.validation.targets import IpAddress, ValidationSettings, is_own_address
from broker.validation.tlsalpn01 import TlsAlpn01

__all__ = ["Validators", "dns_resolver"]


@dataclass(frozen=True, slots=True)
class _Looking:
    http01: Http01
    dns01: Dns01
    tls_alpn01: TlsAlpn01


def dns_resolver(settings: ValidationSettings) -> Resolver:
    """Return the resolver that a community's settings describe."""
    # Half of the time at most, so that the other half is left to connect.
    limit = min(LOOKUP_TIMEOUT, settings.timeout / 2)
    return DnsResolver(settings.resolvers, settings.hosts, lookup_timeout=limit)


class Validators:
    """Implements ``ports.Validator`` for the communities it is given.

    Raises:
        Broken: A community names no resolvers, and the machine has none.
    """

    def __init__(
        self,
        settings: Mapping[str, ValidationSettings],
        *,
        make_resolver: Callable[[ValidationSettings], Resolver] = dns_resolver,
        is_own: Callable[[IpAddress], bool] = is_own_address,
    ) -> None:
        self._communities: dict[str, _Looking] = {}
        for community, chosen in settings.items():
            resolver = make_resolver(chosen)
            self._communities[community] = _Looking(
                Http01(chosen, resolver, is_own=is_own),
                Dns01(chosen, resolver),
                TlsAlpn01(chosen, resolver, is_own=is_own),
            )

    async def observe(self, question: Question) -> Observation:
        """Go and look; what goes wrong on the way is part of the observation.

        Raises:
            Broken: The community is not configured, or the question lacks the account's URL.
        """
        looking = self._communities.get(question.community)
        if looking is None:
            raise Broken(f"community '{question.community}' has no validation settings")
        kind, identifier = question.type, question.identifier
        if is_challenge_for(kind, identifier):
            if kind is ChallengeType.HTTP_01:
                return await looking.http01.observe(question)
            if kind is ChallengeType.TLS_ALPN_01:
                return await looking.tls_alpn01.observe(question)
            return await looking.dns01.observe(question)
        text = f"{kind} is not validated for {identifier.type} identifiers"
        if identifier.is_wildcard:
            text = f"{kind} is not validated for wildcard names"
        return Observation(kind, identifier.value, failure=Failure("protocol", text))
