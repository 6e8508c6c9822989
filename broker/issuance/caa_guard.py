"""CAA records that keep others out: which ones to publish, and where they are missing.

Nothing is published here, and nothing is refused: whoever holds the zone decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.issuance.caa import CaaIssuers, CaaLooker
from broker.issuance.errors import Broken
from broker.issuance.ports import CertificateStore, Clock, Policies
from broker.protocol.caa import CaaIssuer, CaaRecord
from broker.protocol.caa_records import check_guarded, guarding_records
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["CaaGap", "CaaGuard", "GuardedName"]

MAX_NAMES: Final = 100
"""Most names that are looked at for one community: each is a few questions to a resolver."""

BELOW: Final = "host"
"""Label of a name that stands for all below a base."""

MAX_CERTIFICATES: Final = 500
"""Most certificates, newest first, whose names are looked at beside those of the policy."""


@dataclass(frozen=True, slots=True)
class GuardedName:
    """The records to publish at one name."""

    name: str
    records: tuple[CaaRecord, ...]


@dataclass(frozen=True, slots=True)
class CaaGap:
    """One name at which records are missing or let others in."""

    upstream: str
    community: str
    name: str
    sentence: str


class CaaGuard:
    """Says what to publish, and looks whether it is there."""

    def __init__(
        self,
        *,
        issuers: CaaIssuers,
        looker: CaaLooker,
        policies: Policies,
        certificates: CertificateStore,
        clock: Clock,
    ) -> None:
        self._issuers = issuers
        self._looker = looker
        self._policies = policies
        self._certificates = certificates
        self._clock = clock

    async def records(
        self, upstream: str, community: str, *, names: Sequence[str], iodef: str | None
    ) -> Sequence[GuardedName]:
        """Return the records for each of *names*, without names for those that policy allows.

        Raises:
            Unreachable: The CA's directory cannot be had now.
            Broken: The CA tells nobody what CAA records call it, or no name is known.
        """
        wanted = tuple(names) or self._policy_names(community)
        if not wanted:
            raise Broken(
                f"the policy of community '{community}' allows every name, so say which: --name"
            )
        guarded = []
        issuer = await self._issuer(upstream, community, wanted[:MAX_NAMES])
        for name in wanted[:MAX_NAMES]:
            plain, wildcard = _name(name), _name(f"*.{name}")
            is_wild = self._policies.current(community).wildcards
            made = guarding_records(
                identities=sorted(issuer.identities),
                account_uri=issuer.account_uri,
                methods=sorted(issuer.methods.get(plain, ())),
                wildcard_methods=sorted(issuer.methods.get(wildcard, ())) if is_wild else (),
                iodef=iodef,
            )
            guarded.append(GuardedName(name, made))
        return guarded

    async def gaps(self, upstream: str, community: str) -> Sequence[CaaGap]:
        """Return where records for this account are missing, or do not keep others out.

        Looked at are the names that policy allows, and those of live certificates.

        Raises:
            Unreachable: The CA's directory cannot be had now.
            Broken: The CA tells nobody what CAA records call it.
        """
        names = dict.fromkeys(self._policy_names(community))
        names |= dict.fromkeys(await self._certified_names(upstream, community))
        if not names:
            return ()
        looked = list(names)[:MAX_NAMES]
        issuer = await self._issuer(upstream, community, looked)
        return [
            CaaGap(upstream, community, seen.identifier.value, sentence)
            for seen in await self._looker.look(community, [_name(name) for name in looked])
            for sentence in check_guarded(seen, issuer)
        ]

    async def _issuer(self, upstream: str, community: str, names: Sequence[str]) -> CaaIssuer:
        """Return our account at the CA, with the methods for each name and its wildcard.

        A record at a name speaks for those below it too, so the methods for them are its own.
        """
        below = {name: _name(f"{BELOW}.{name}") for name in names}
        identifiers = [
            one for name in names for one in (_name(name), _name(f"*.{name}"), below[name])
        ]
        issuer = await self._issuers.caa_issuer(upstream, community, identifiers)
        methods = dict(issuer.methods)
        for name, inner in below.items():
            methods[_name(name)] = methods.get(_name(name), frozenset()) | methods[inner]
        issuer = replace(issuer, methods=methods)
        if not issuer.identities:
            raise Broken(
                f"upstream '{upstream}' names no caaIdentities in its directory, so no record can "
                "name it; where you know them, configure caa_identities"
            )
        return issuer

    def _policy_names(self, community: str) -> tuple[str, ...]:
        bases = self._policies.current(community).allow.bases
        return () if "" in bases else tuple(sorted(bases))

    async def _certified_names(self, upstream: str, community: str) -> Sequence[str]:
        now = self._clock.now()
        held = await self._certificates.list_certificates(
            community=community, after=None, limit=MAX_CERTIFICATES
        )
        return [
            identifier.base.value
            for certificate in held
            if certificate.upstream == upstream
            and certificate.is_released
            and certificate.revoked_at is None
            and certificate.not_after > now
            for identifier in certificate.identifiers
            if identifier.type is IdentifierType.DNS
        ]


def _name(name: str) -> Identifier:
    return Identifier(IdentifierType.DNS, name)
