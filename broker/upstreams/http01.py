"""The answers that Penstock's own plain HTTP listener gives to CAs (RFC 8555 §8.3).

Only a table: the listener stands elsewhere.  It is empty but for the minutes in which a CA looks,
and a token that nobody asked us for is answered with nothing.
"""

from __future__ import annotations

from typing import Final

from broker.protocol.challenges import http01_path

__all__ = ["Http01Answers"]

_PREFIX: Final = http01_path("A" * 22).removesuffix("A" * 22)


class Http01Answers:
    """Which token is answered with what, for which host."""

    def __init__(self, *, is_host_bound: bool = True) -> None:
        """Start empty.

        With *is_host_bound* a token is answered only for the host it was given for.  Turn that
        off where other hosts redirect their challenges here: a redirect changes the host.
        """
        self._is_host_bound = is_host_bound
        self._answers: dict[str, tuple[str, bytes]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, host: str, token: str, key_authorization: str) -> None:
        """Answer *token* with *key_authorization* from now on."""
        self._answers[token] = (host, key_authorization.encode("ascii"))

    def remove(self, token: str) -> None:
        """Answer *token* no more; one that is not there is no error."""
        self._answers.pop(token, None)

    def answer(self, host: str, path: str) -> bytes | None:
        """Return the body for a GET of *path* with this Host header, or None for 404."""
        if not path.startswith(_PREFIX):
            return None
        known = self._answers.get(path.removeprefix(_PREFIX))
        if known is None:
            return None
        expected, body = known
        if self._is_host_bound and _host_of(host) != expected:
            return None
        return body


def _host_of(header: str) -> str:
    """Return the host in a Host header, without port, brackets and trailing dot."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")
