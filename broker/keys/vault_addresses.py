"""Which address of Vault is asked first: the first one that did not fail just now.

The order of the configuration is the order of preference.  An address that failed is left out for
a moment, so that an outage costs each request no time limit of its own; a probe that succeeds
takes it back at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from broker.keys.vault_answers import Away, VaultState, merge_faults

__all__ = ["Addresses", "Trip"]

AVOID_SECONDS: Final = 5.0
"""How long an address that failed is left out unless a probe finds it well before: longer than
the pause between two probes, short enough where nobody probes."""

_ITS_OWN: Final = frozenset(
    {VaultState.SEALED, VaultState.UNREACHABLE, VaultState.SLOW, VaultState.UNTRUSTED}
)
"""Faults of the node, not of the request."""


@dataclass(frozen=True, slots=True)
class _Mark:
    fault: Away
    until: float


class Addresses:
    """The addresses of one Vault.  Used from the event loop and from the pool's threads alike:
    each step is one operation on one dictionary."""

    def __init__(self, addresses: Sequence[str], monotonic: Callable[[], float]) -> None:
        self._all = tuple(address.rstrip("/") for address in addresses)
        self._monotonic = monotonic
        self._marks: dict[str, _Mark] = {}
        self._answered: dict[str, float] = {}

    @property
    def all(self) -> tuple[str, ...]:
        """Return every address, the preferred one first."""
        return self._all

    def now(self) -> float:
        """Return the time that *since* of ``failed`` is measured in, in seconds."""
        return self._monotonic()

    def failing(self) -> tuple[str, ...]:
        """Return those whose last word was a fault of their own."""
        return tuple(address for address in self._all if address in self._marks)

    def trip(self, *, is_repeatable: bool) -> Trip:
        """Return one request's way through the addresses.

        *is_repeatable* says that a request which may have been acted on can be made again.

        Raises:
            Away: All of them failed just now; none is asked.
        """
        now = self._monotonic()
        marks = dict(self._marks)
        usable = [each for each in self._all if each not in marks or marks[each].until <= now]
        if not usable:
            raise merge_faults((each, marks[each].fault) for each in self._all)
        return Trip(self, usable, is_repeatable=is_repeatable)

    def answered(self, address: str) -> None:
        """Note that it had an answer, whichever."""
        self._answered[address] = self._monotonic()
        self._marks.pop(address, None)

    def failed(self, address: str, fault: Away, *, since: float) -> None:
        """Note a fault of a request that was begun at *since*.

        One slow request among many that are answered is no fault of the node.
        """
        if fault.state not in _ITS_OWN:
            return
        if fault.state is VaultState.SLOW and self._answered.get(address, -1.0) > since:
            return
        self._marks[address] = _Mark(fault, self._monotonic() + AVOID_SECONDS)

    def named_by(self, target: str) -> str | None:
        """Return the configured address that a redirect names, None when it names another host."""
        wanted = _origin(target)
        return next((each for each in self._all if _origin(each) == wanted), None)


class Trip:
    """One request's way: each address at most once, the one that a redirect names first."""

    def __init__(self, addresses: Addresses, usable: Sequence[str], *, is_repeatable: bool) -> None:
        self._addresses = addresses
        self._left = list(usable)
        self._is_repeatable = is_repeatable
        self._since = addresses.now()
        self._faults: list[tuple[str, Away]] = []
        self._again: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        """Yield the addresses for as long as asking another one makes sense."""
        while self._left:
            yield self._left.pop(0)

    def answered(self, address: str) -> None:
        """Note that the address had an answer."""
        self._addresses.answered(address)

    def failed(self, address: str, fault: Away) -> None:
        """Note that it had none.

        A connection that broke may have been closed by a balancer just as we used it: what can be
        repeated is asked once more over a new one.
        """
        if fault.is_stale and self._is_repeatable and address not in self._again:
            self._again.add(address)
            self._left.insert(0, address)
            return
        self._addresses.failed(address, fault, since=self._since)
        self._faults.append((address, self._named(fault)))
        if not fault.is_elsewhere or not (fault.left_nothing or self._is_repeatable):
            self._left.clear()

    def verdict(self) -> Away:
        """Return what became of it, once no address is left."""
        return merge_faults(self._faults)

    def _named(self, fault: Away) -> Away:
        """Follow a redirect to an address of ours, and say of another that it is not one."""
        if fault.target is None:
            return fault
        target = self._addresses.named_by(fault.target)
        if target is None:
            reason = f"{fault.reason} to a host that is not among the addresses configured"
            return Away(fault.state, reason)
        if target in self._left:
            self._left.remove(target)
            self._left.insert(0, target)
        return Away(fault.state, f"{fault.reason} to {target}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        default = 443 if parts.scheme == "https" else None
        return parts.scheme, parts.hostname, parts.port or default
    except ValueError:
        return "", None, None
