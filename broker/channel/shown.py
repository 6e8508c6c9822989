"""What a request shows of who sends it: a TLS client certificate, or a signature.

Nothing of it is believed here beyond what TLS has verified.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from aiohttp import web

from agents import wire

__all__ = ["BEHIND_PROXY", "has_claim", "is_signed", "shown_chain"]

BEHIND_PROXY: Final = web.RequestKey("behind_proxy", bool)
"""Key of a request that a named load balancer has passed on: the certificate that TLS shows is its
own, and says nothing of whom it speaks for."""


def shown_chain(request: web.Request) -> tuple[bytes, ...]:
    """Return the DER of the TLS client certificate with what came along, leaf first."""
    if request.get(BEHIND_PROXY):
        return ()
    transport = request.transport
    tls: Any = None if transport is None else transport.get_extra_info("ssl_object")
    leaf: bytes | None = None if tls is None else tls.getpeercert(binary_form=True)
    return () if leaf is None else (leaf, *_issuers_shown(tls))


def has_claim(request: web.Request) -> bool:
    """Return whether the request claims to be a node's: whoever looks will see whether it is.

    One that asks to be let in does not, unless it is signed by the key of a former identity.
    """
    return is_signed(request) or _shows_identity(request)


def is_signed(request: web.Request) -> bool:
    """Return whether the request says that it is signed."""
    return "Signature-Input" in request.headers


def _shows_identity(request: web.Request) -> bool:
    return request.path != wire.PATHS["enrol"] and bool(shown_chain(request))


def _issuers_shown(tls: Any) -> tuple[bytes, ...]:
    """Return what a client sent behind its leaf; it is public from Python 3.13 on."""
    if hasattr(tls, "get_unverified_chain"):
        return tuple(tls.get_unverified_chain()[1:])
    ask = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)
    if ask is None:
        return ()
    return tuple(ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in ask()[1:])
