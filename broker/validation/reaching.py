"""From a host to the addresses that may be contacted: looked up once, judged, put in order."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from broker.validation.dialing import Dialer
from broker.validation.failures import Unobserved
from broker.validation.resolver import NameNotFound, ResolutionFailed, Resolver
from broker.validation.targets import (
    IpAddress,
    RefusedTarget,
    Target,
    ValidationSettings,
    is_own_address,
    verify_target,
)

__all__ = ["Reaching"]

MAX_ADDRESSES_TRIED: Final = 4
"""Most addresses of one host that are connected to: two of each family cover a broken one."""

CONNECT_SHARE: Final = 5
"""Which part of the whole time one connection attempt may take: a fifth, so that four attempts
leave one for the answer."""


class Reaching:
    """One community's way to the hosts that it is asked about."""

    def __init__(
        self,
        settings: ValidationSettings,
        resolver: Resolver,
        *,
        is_own: Callable[[IpAddress], bool] = is_own_address,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._is_own = is_own
        self.dialer = Dialer(settings.proxy)

    @property
    def connect_timeout(self) -> timedelta:
        """Return how long one connection attempt may take."""
        return self._settings.timeout / CONNECT_SHARE

    async def targets(self, host: str, port: int) -> Sequence[Target]:
        """Return where *host* may be contacted, at least one; a literal is its own address.

        Raises:
            Unobserved: It has no address, or none that may be contacted.
        """
        return self._fit(await self._addresses(host), port)

    async def _addresses(self, host: str) -> Sequence[IpAddress]:
        try:
            return (ipaddress.ip_address(host),)
        except ValueError:
            pass
        try:
            return await self._resolver.addresses(host)
        except (NameNotFound, ResolutionFailed) as error:
            raise Unobserved("dns", str(error)) from None

    def _fit(self, addresses: Sequence[IpAddress], port: int) -> Sequence[Target]:
        """Return the addresses that may be contacted; those that may not are passed over."""
        fit: dict[int, list[Target]] = {6: [], 4: []}
        refusals: list[str] = []
        for address in addresses:
            try:
                target = verify_target(address, port, self._settings, is_own=self._is_own)
                fit[target.address.version].append(target)
            except RefusedTarget as refusal:
                refusals.append(str(refusal))
        targets = [*fit[6][: MAX_ADDRESSES_TRIED // 2], *fit[4][: MAX_ADDRESSES_TRIED // 2]]
        if not targets:
            raise Unobserved("refused-address", refusals[0])
        return targets
