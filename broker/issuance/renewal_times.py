"""When a certificate at a node is renewed, tried again, and told to be late.

The moment lies in the suggested window, at a place that the certificate's fingerprint alone
decides: the same at every look, another for every certificate, so that a thousand do not come at
once.  It is pulled forward to a time in which the node may be reloaded; never is it put off.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.managed_ports import ReloadWindows
from broker.issuance.node_ports import ManagedRecord, NodeRecord, NodeStatus
from broker.issuance.ports import CertificateStore, Clock, Policies
from broker.issuance.records import CertificateRecord
from broker.issuance.renewal_ports import RenewalStore
from broker.issuance.renewals import suggested_window
from broker.policy.document import Profile
from broker.protocol.certificates import ChainError, parse_chain
from broker.protocol.renewal import DEFAULT_RENEW_AT, RenewalWindow, own_window, window_past

__all__ = ["RenewalTimes", "drawn", "late_at", "pause_after"]

FIRST_PAUSE: Final = timedelta(minutes=1)
"""Pause after the first attempt that came to nothing; it doubles with each that follows, so that
the first hour sees six."""

LONGEST_PAUSE: Final = timedelta(hours=6)
"""Longest pause between attempts: four a day find out that it works again."""

PAUSE_SHARE: Final = 20
"""No pause is longer than this part of the lifetime: what lives five minutes is tried each
quarter of one."""

SHORTEST_PAUSE: Final = timedelta(seconds=5)
"""Shortest pause, whatever the lifetime."""

PAUSE_JITTER: Final = 0.25
"""Largest share that a pause is made longer by, so that those that failed together part."""

LATE_SHARE: Final = 3
"""It is told that a renewal is late when this part of what was left of the life has gone."""

LATE_WHEN_NEW: Final = timedelta(hours=1)
"""It is told that a node has waited for its first certificate when so long has gone."""

DRAINED_PAUSE: Final = timedelta(minutes=10)
"""Pause between looks at certificates of a node that is drained: it may be made active again."""


class RenewalTimes:
    """Works out when to look at a certificate next."""

    def __init__(
        self,
        *,
        certificates: CertificateStore,
        renewals: RenewalStore,
        policies: Policies,
        clock: Clock,
        windows: ReloadWindows | None = None,
    ) -> None:
        self._certificates = certificates
        self._renewals = renewals
        self._policies = policies
        self._clock = clock
        self._windows = windows

    async def planned(self, managed: ManagedRecord, node: NodeRecord) -> ManagedRecord:
        """Return *managed* with the time of its next look, as all that is known now tells it."""
        if not managed.is_wanted or node.status is NodeStatus.REVOKED:
            return replace(managed, next_at=None, due_since=None)
        moment = await self.moment(managed, node)
        return replace(managed, next_at=moment or self._clock.now())

    async def moment(self, managed: ManagedRecord, node: NodeRecord) -> datetime | None:
        """Return when to renew it; None: there is nothing to renew, it is wanted now."""
        found = await self._window(managed)
        if found is None:
            return None
        window, fingerprint = found
        moment = drawn(window, fingerprint)
        if self._windows is None:
            return moment
        now = self._clock.now()
        pulled = self._windows.pulled_forward(node.name, moment, now=now, seed=fingerprint)
        return min(pulled, moment)

    async def _window(self, managed: ManagedRecord) -> tuple[RenewalWindow, str] | None:
        profile = self._policies.current(managed.community).profile(managed.profile)
        if managed.certificate_id is not None:
            found = await self._certificates.find_certificate(managed.certificate_id)
            if found is not None:
                return await self._window_of(found, profile), found.fingerprint
        if managed.served_pem is not None:
            return _window_of_served(managed.served_pem, profile)
        if managed.not_after is not None:
            # Nothing but its end is known, so the rest of its life stands for the whole of it.
            end = managed.not_after
            began = min(managed.created_at, end - timedelta(seconds=2))
            seed = managed.managed_id
            return own_window(began, end, seed=seed, renew_at=_share(profile)), seed
        return None

    async def _window_of(self, found: CertificateRecord, profile: Profile | None) -> RenewalWindow:
        now = self._clock.now()
        if found.revoked_at is not None or found.revocation_reason is not None:
            return window_past(now)
        if found.cert_id is not None:
            seen = await self._renewals.renewal_views(found.community, found.cert_id)
            for view in seen:
                if view.certificate_id == found.certificate_id:
                    renew_at = None if profile is None else profile.renew_at
                    return suggested_window(view, now, renew_at=renew_at)
        return own_window(
            found.not_before, found.not_after, seed=found.fingerprint, renew_at=_share(profile)
        )


def drawn(window: RenewalWindow, seed: str) -> datetime:
    """Return a moment of *window* that *seed* alone decides, evenly over all seeds."""
    return window.start + (window.end - window.start) * _place(f"moment|{seed}")


def pause_after(managed: ManagedRecord, lifetime: timedelta | None) -> timedelta:
    """Return how long to wait after the attempts that *managed* counts."""
    doublings = min(max(managed.attempts - 1, 0), 16)
    pause = min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)
    if lifetime is not None:
        pause = min(pause, max(lifetime / PAUSE_SHARE, SHORTEST_PAUSE))
    jitter = 1 + PAUSE_JITTER * _place(f"pause|{managed.managed_id}|{managed.attempts}")
    return pause * jitter


def late_at(managed: ManagedRecord) -> datetime | None:
    """Return when it is to be told that its renewal is late; None: it is not due."""
    since = managed.due_since
    if since is None:
        return None
    if managed.not_after is None:
        return since + LATE_WHEN_NEW
    return since + max(managed.not_after - since, timedelta()) / LATE_SHARE


def _share(profile: Profile | None) -> float:
    return (None if profile is None else profile.renew_at) or DEFAULT_RENEW_AT


def _window_of_served(pem: bytes, profile: Profile | None) -> tuple[RenewalWindow, str] | None:
    try:
        leaf = parse_chain(pem).leaf
    except ChainError:
        return None
    window = own_window(
        leaf.not_before, leaf.not_after, seed=leaf.fingerprint, renew_at=_share(profile)
    )
    return window, leaf.fingerprint


def _place(seed: str) -> float:
    """Return a number from 0 to 1 that *seed* decides."""
    octets = hashlib.sha256(seed.encode("utf-8")).digest()[:6]
    return int.from_bytes(octets, "big") / (1 << 48)
