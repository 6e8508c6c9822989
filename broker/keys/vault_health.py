"""How Vault stands, for whom and since when; and who is told of what happens there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from broker.issuance.ports import Clock
from broker.keys.vault_answers import VaultState

__all__ = ["IdentityHealth", "Silent", "Standing", "VaultHealth", "VaultObserver"]


class VaultObserver(Protocol):
    """Told of what happens at Vault; counts it, mostly."""

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """One request of an identity ended; *outcome* is ok, answered (a fault of ours) or a
        state."""
        ...

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """One login ended: ok, denied, alarm, or a state."""
        ...

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """One renewal of a token ended: ok, denied, or a state."""
        ...

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """A wrapping token may have been opened by somebody else."""
        ...


class Silent:
    """An observer that does nothing."""

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """Do nothing."""

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """Do nothing."""

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityHealth:
    """How Vault stands towards one identity."""

    identity: str
    """The mount that it is for, or ``default``."""
    state: VaultState
    since: datetime
    reason: str = ""
    is_root: bool = False
    """Whether it has a token that may do everything."""

    @property
    def is_up(self) -> bool:
        """Return whether it can work, as far as is known."""
        return self.state in (VaultState.OK, VaultState.UNTRIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultHealth:
    """How Vault stands towards all of them."""

    identities: tuple[IdentityHealth, ...]

    @property
    def is_up(self) -> bool:
        """Return whether all can work."""
        return all(each.is_up for each in self.identities)

    def warning(self) -> str | None:
        """Return one line about what is down and since when, None when nothing is."""
        down = [each for each in self.identities if not each.is_up]
        lines = (
            f"{each.state} for '{each.identity}' since "
            f"{each.since.isoformat(timespec='seconds').replace('+00:00', 'Z')}: {each.reason}"
            for each in down
        )
        return " | ".join(lines) or None


class Standing:
    """Keeps how Vault stands towards one identity."""

    def __init__(self, identity: str, clock: Clock) -> None:
        self._clock = clock
        self._now = IdentityHealth(identity=identity, state=VaultState.UNTRIED, since=clock.now())
        self.on_change: Callable[[IdentityHealth, IdentityHealth], None] | None = None
        """Told of the one before and the new one whenever the state changes."""

    def current(self) -> IdentityHealth:
        """Return it as it is now."""
        return self._now

    def set_root(self, *, is_root: bool) -> None:
        """Note whether the token may do everything."""
        self._now = replace(self._now, is_root=is_root)

    def becomes(self, state: VaultState, reason: str = "") -> None:
        """Note the state; *since* stays where it is the same one, or down for another reason."""
        before = self._now
        if before.state is state and before.reason == reason:
            return
        was_down, is_down = not before.is_up, state not in (VaultState.OK, VaultState.UNTRIED)
        since = before.since if was_down and is_down else self._clock.now()
        if before.state is state:
            since = before.since
        self._now = replace(before, state=state, since=since, reason=reason)
        if before.state is not state and self.on_change is not None:
            self.on_change(before, self._now)
