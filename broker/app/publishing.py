"""What the built-in CAs publish, renew on a schedule and warn of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.upstreams.ageing import CaEnd, ca_ends
from broker.upstreams.builtin import BuiltinCa
from broker.web.plain import Publication

__all__ = ["AuthorityPublishing"]

log = structlog.get_logger("penstock")

CERTIFICATE_AGE: Final = timedelta(days=1)
"""How long an issuer certificate may be cached; it never changes under its URL."""


class AuthorityPublishing:
    """The built-in CAs as seen from the plain listener and the schedule."""

    def __init__(self, config: Config, authorities: Mapping[str, BuiltinCa], clock: Clock) -> None:
        """Publish for *authorities*, which may still grow."""
        self._config = config
        self._authorities = authorities
        self._clock = clock

    async def certificate(self, name: str) -> Publication | None:
        """Return the certificate of an issuing CA, retired ones included."""
        for authority in list(self._authorities.values()):
            issuer = authority.find_issuer(name)
            if issuer is not None:
                return Publication(
                    body=issuer.der,
                    modified_at=issuer.certificate.not_valid_before_utc,
                    fresh_for=CERTIFICATE_AGE,
                    expires_at=self._clock.now() + CERTIFICATE_AGE,
                )
        return None

    async def revocation_list(self, name: str) -> Publication | None:
        """Return the revocation list of an issuing CA.

        Raises:
            Unreachable: None that still runs can be had now.
            Broken: The same, and trying again is useless.
        """
        for upstream, authority in list(self._authorities.items()):
            crl = await authority.current_crl(name)
            if crl is not None:
                now = self._clock.now()
                until = min(now + self._longest_cache(upstream), max(now, crl.renew_at))
                return Publication(
                    body=crl.der,
                    modified_at=crl.signed_at,
                    fresh_for=until - now,
                    expires_at=until,
                )
        return None

    async def renew_lists(self) -> None:
        """Sign the lists that are due; one CA that cannot holds up no other.

        Raises:
            Unreachable: Not all could be signed now.
            Broken: The same, and trying again is useless.
        """
        fault: Unreachable | Broken | None = None
        for authority in list(self._authorities.values()):
            try:
                await authority.renew_crls()
            except (Unreachable, Broken) as error:
                fault = error
        if fault is not None:
            raise fault

    def ends(self) -> Mapping[str, tuple[CaEnd, ...]]:
        """Return when the certificates of each CA end, by upstream."""
        now = self._clock.now()
        return {
            name: tuple(ca_ends(one.issuers, longest=one.longest_lifetime, now=now))
            for name, one in list(self._authorities.items())
        }

    def end_times(self) -> Mapping[tuple[str, str], datetime]:
        """Return the same for the metrics: by upstream and role."""
        return {
            (name, end.role): end.not_after for name, ends in self.ends().items() for end in ends
        }

    async def warn_of_ends(self) -> None:
        """Tell the log of each certificate that somebody has to replace."""
        for name, ends in self.ends().items():
            for end in ends:
                if end.warning is not None:
                    log.warning("built-in CA nears its end", upstream=name, what=end.warning)

    def _longest_cache(self, upstream: str) -> timedelta:
        section = self._config.upstreams[upstream]
        if not isinstance(section, BuiltinUpstream):
            raise Broken(f"upstream '{upstream}' is no built-in CA")
        return section.crl_cache
