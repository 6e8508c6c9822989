"""A JWS in its flattened form, taken apart: three members, and a header of known names.

Accepted is exactly what is expected and nothing else.  Nothing is verified here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from broker.protocol.encoding import parse_base64url, parse_json_object
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["MAX_HEADER_URL_CHARS", "Flattened", "open_flattened", "read_visible"]

MAX_HEADER_URL_CHARS: Final = 2048
"""Longest ``url`` or ``kid`` that is read, in characters."""

_ENVELOPE_MEMBERS: Final = frozenset({"protected", "payload", "signature"})
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Flattened:
    """The decoded parts of a flattened JWS; its signature is NOT verified yet."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def open_flattened(outer: Mapping[str, Any], what: str, headers: frozenset[str]) -> Flattened:
    """Return the parts of a flattened JWS of exactly three members and allow-listed headers.

    Raises:
        Problem: malformed.  Tell the client.
    """
    for name in outer:
        if name not in _ENVELOPE_MEMBERS:
            _malformed(
                f"{what} has the member '{printable(name, 64)}', "
                "expected protected, payload and signature alone"
            )
    octets = {name: _decode(outer, what, name) for name in sorted(_ENVELOPE_MEMBERS)}
    if not octets["signature"]:
        _malformed(f"{what} has an empty signature")
    header = parse_json_object(octets["protected"], what=f"{what} protected header")
    for name in header:
        if name not in headers:
            _malformed(
                f"{what} protected header has the member '{printable(name, 64)}', "
                f"expected {', '.join(sorted(headers))} alone"
            )
    message = f"{outer['protected']}.{outer['payload']}".encode("ascii")
    return Flattened(header, octets["payload"], message, octets["signature"])


def _decode(outer: Mapping[str, Any], what: str, name: str) -> bytes:
    text = outer.get(name)
    if not isinstance(text, str):
        _malformed(f"{what} has no string member '{name}'")
    try:
        return parse_base64url(text)
    except ValueError as error:
        _malformed(f"{what} member '{name}' {error}")


def read_visible(header: Mapping[str, Any], name: str, limit: int) -> str:
    """Return a header of visible ASCII characters, at most *limit*; raises Problem."""
    text = header.get(name)
    if not isinstance(text, str) or len(text) > limit or _VISIBLE.fullmatch(text) is None:
        _malformed(f"protected header has no {name} of 1 to {limit} visible ASCII characters")
    return text


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)
