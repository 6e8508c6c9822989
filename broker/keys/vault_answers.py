"""What an answer of Vault means for whoever asked: a document, a fault, or nothing at all.

Pure: it knows status codes and the words that Vault uses, and neither sockets nor time.  Tokens
that a message might repeat are struck out before anything is made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from broker.issuance.errors import Broken, NoKeyStore
from broker.protocol.problems import printable

__all__ = [
    "Away",
    "Denied",
    "RawAnswer",
    "VaultNotFound",
    "VaultState",
    "merge_faults",
    "read_answer",
]

MAX_TEXT: Final = 200
"""Most characters of Vault's own words that go into a message of ours."""

MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""Longest wait that is kept to, in seconds: whoever names a longer one is asked again all the same,
since nothing but a restart would end it otherwise."""

_SECRETS: Final = re.compile(r"\b(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{8,}")
"""What Vault's tokens look like: service, batch and recovery tokens, old and new."""

_NODE_FAULTS: Final = frozenset({412, 472, 473, 500, 501, 502, 503, 504})
"""Answers for which another node may have a better one.

412: a performance standby has not caught up.  472, 473: a disaster recovery secondary, a
performance standby.  501: not initialised.  502, 504: something in between.
"""

_OUR_FAULTS: Final = ("requested version for", "cannot sign with", "key version")
"""Words in an answer of 500 that say it is we who asked for something that is not there."""


class VaultState(StrEnum):
    """How Vault stands towards one of our identities."""

    UNTRIED = "untried"
    OK = "ok"
    SEALED = "sealed"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    UNTRUSTED = "untrusted"
    """Its TLS certificate does not lead to a root that we trust: nothing was sent."""
    REDIRECTING = "redirecting"
    LIMITED = "limited"
    FAILING = "failing"
    DENIED = "denied"
    """It does not let us in, or not do what we have to."""


class VaultNotFound(Broken):
    """Vault answered 404: there is no such key, secret or version."""


class Away(Exception):
    """No usable answer came; inside this room only, made into ``Unreachable`` at its door."""

    def __init__(
        self,
        state: VaultState,
        reason: str,
        *,
        left_nothing: bool = True,
        retry_after: float | None = None,
        is_elsewhere: bool = True,
        target: str | None = None,
        is_stale: bool = False,
    ) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.left_nothing = left_nothing
        """Whether the request was certainly not acted on."""
        self.retry_after = retry_after
        """Seconds that it asked us to wait."""
        self.is_elsewhere = is_elsewhere
        """Whether another address may do better."""
        self.target = target
        """Where it sent us instead."""
        self.is_stale = is_stale
        """Whether a connection broke that may have been kept for too long."""


class Denied(Exception):
    """Vault answered 403; inside this room only."""

    def __init__(self, reason: str, *, is_token_bad: bool, what: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.what = what
        """Method and path."""
        self.is_token_bad = is_token_bad
        """Whether it said that there is no such token, rather than that it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came over the wire."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes = field(repr=False)


def read_answer(answer: RawAnswer, what: str) -> Mapping[str, Any]:
    """Return the whole document that Vault answered, empty where it had nothing to say.

    *what* is method and path, for messages.

    Raises:
        Away: This node has no usable answer; perhaps another one has.
        Denied: The token may not do this, or there is no such token.
        VaultNotFound: There is no such thing.
        Broken: It will answer so until a person acts.
    """
    status = answer.status
    if 200 <= status < 300:
        return _document(answer, what)
    errors = _errors(answer)
    said = f"{what} answered {status}" + (f": {errors}" if errors else "")
    if 300 <= status < 400:
        target = answer.headers.get("location", "")
        raise Away(VaultState.REDIRECTING, f"{what} redirects", target=target)
    if status == 403:
        is_bad = "invalid token" in errors or "bad token" in errors
        raise Denied(said, is_token_bad=is_bad, what=what)
    if status == 429:
        seconds = _seconds(answer.headers.get("retry-after"))
        raise Away(VaultState.LIMITED, said, retry_after=seconds, is_elsewhere=False)
    if status >= 500 and any(words in errors for words in _OUR_FAULTS):
        raise Broken(said)
    if status in _NODE_FAULTS or status >= 500:
        is_sealed = status == 503 and "sealed" in errors
        state = VaultState.SEALED if is_sealed or status == 501 else VaultState.FAILING
        # Whoever answers 500 may have begun; the others say that it is not theirs to do.
        raise Away(state, said, left_nothing=status in {412, 472, 473, 501, 503})
    if status == 404 and "no handler for route" not in errors:
        raise VaultNotFound(said)
    if status == 404:
        raise NoKeyStore(
            f"nothing is mounted in Vault where {what} asks: see vault.namespace, the name of the "
            "mount, and penstock vault setup --print"
        )
    raise Broken(said)


def merge_faults(faults: Iterable[tuple[str, Away]]) -> Away:
    """Return one fault for what each address answered, in the order in which they were asked."""
    told = list(faults)
    first = told[0][1]
    reasons = dict.fromkeys(f"{address}: {fault.reason}" for address, fault in told)
    waits = [fault.retry_after for _, fault in told if fault.retry_after is not None]
    return Away(
        first.state,
        "; ".join(reasons),
        left_nothing=all(fault.left_nothing for _, fault in told),
        retry_after=min(waits, default=None),
    )


def _document(answer: RawAnswer, what: str) -> Mapping[str, Any]:
    if not answer.body.strip():
        return {}
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):  # nested a thousand deep
        document = None
    if not isinstance(document, dict):
        # A portal or a proxy that stands in Vault's place.
        raise Away(VaultState.FAILING, f"{what} answered with no JSON object", left_nothing=False)
    return document


def _errors(answer: RawAnswer) -> str:
    """Return Vault's own words on one line, cut short and without tokens."""
    try:
        document = json.loads(answer.body)
        errors = document.get("errors") or ()
        words = " ".join(str(each) for each in errors) if isinstance(errors, list) else ""
    except (ValueError, AttributeError, RecursionError):
        return ""
    return printable(_SECRETS.sub("…", " ".join(words.split())), MAX_TEXT)


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After in seconds; Vault sends no dates (RFC 9110 §10.2.3 allows them)."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(float(text), MAX_RETRY_AFTER_SECONDS)
