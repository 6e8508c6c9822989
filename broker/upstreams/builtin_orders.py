"""Orders of the built-in CA, written into their own URL.

The CA answers at once and trusts the broker, so an order needs no row of its own: its URL says
all that was asked for, and the ledger says whether it was answered.  To everyone else the URL is
opaque, like that of any CA.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import UpstreamOrder, UpstreamRequest
from broker.protocol.encoding import (
    encode_base64url,
    format_timestamp,
    parse_base64url,
    parse_json_object,
    parse_timestamp,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus

__all__ = ["order_url", "parse_order_url", "ready_order", "valid_order"]

MAX_IDENTIFIERS: Final = 100
"""Most identifiers of an order: as many as public CAs take, and a URL of at most 40 kB."""

REMEMBERED_ORDERS: Final = 128
"""Orders whose parsed URL is kept: those under way at once; at 40 kB each they take 5 MB."""

_REFERENCE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def order_url(ca: str, request: UpstreamRequest) -> str:
    """Return the URL of the order that answers *request*: always the same one.

    Raises:
        Broken: The reference is not one of ours.
        Refused: There are too many identifiers, or none.
    """
    if _REFERENCE.fullmatch(request.reference) is None:
        raise Broken(f"order reference '{request.reference}' is not base64url")
    count = len(request.identifiers)
    if not 1 <= count <= MAX_IDENTIFIERS:
        raise Refused(
            Problem(
                ProblemType.MALFORMED,
                f"order has {count} identifiers, expected 1 to {MAX_IDENTIFIERS}",
            )
        )
    asked = {
        "identifiers": [[str(name.type), name.value] for name in request.identifiers],
        "not_after": request.not_after and format_timestamp(request.not_after),
        "profile": request.profile,
    }
    payload = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return f"builtin:{ca}:{request.reference}:{encode_base64url(payload.encode())}"


@lru_cache(maxsize=REMEMBERED_ORDERS)
def parse_order_url(ca: str, url: str) -> UpstreamRequest:
    """Return what the order at *url* asked for.

    It follows from the URL alone, and is asked three times for an order, so it is remembered.

    Raises:
        Refused: This CA has no such order.
    """
    scheme, _, rest = url.partition(":")
    name, _, rest = rest.partition(":")
    reference, _, payload = rest.partition(":")
    try:
        if scheme != "builtin" or name != ca or _REFERENCE.fullmatch(reference) is None:
            raise ValueError("is not of this CA")
        return _read_payload(reference, parse_json_object(parse_base64url(payload)))
    except (ValueError, KeyError, TypeError, Problem):
        raise Refused(Problem(ProblemType.MALFORMED, f"CA '{ca}' has no such order")) from None


def _read_payload(reference: str, asked: Mapping[str, object]) -> UpstreamRequest:
    pairs, profile, not_after = asked["identifiers"], asked["profile"], asked["not_after"]
    if not isinstance(pairs, list) or not isinstance(profile, str | None):
        raise TypeError("has members of another type")
    if not isinstance(not_after, str | None):
        raise TypeError("has members of another type")
    return UpstreamRequest(
        reference=reference,
        identifiers=tuple(Identifier(IdentifierType(kind), value) for kind, value in pairs),
        profile=profile,
        not_after=None if not_after is None else parse_timestamp(not_after),
    )


def ready_order(url: str, request: UpstreamRequest) -> UpstreamOrder:
    """Return the order as one that waits for its finalize."""
    return UpstreamOrder(
        url=url,
        status=OrderStatus.READY,
        identifiers=request.identifiers,
        profile=request.profile,
        not_after=request.not_after,
    )


def valid_order(url: str, request: UpstreamRequest) -> UpstreamOrder:
    """Return the order as one whose certificate can be had, at the order's own URL."""
    return UpstreamOrder(
        url=url,
        status=OrderStatus.VALID,
        identifiers=request.identifiers,
        profile=request.profile,
        not_after=request.not_after,
        certificate_url=url,
    )
