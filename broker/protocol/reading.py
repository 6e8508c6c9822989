"""What everyone may read at a CA: its directory, and renewal information.

The requests of ACME that nobody signs (RFC 8555 §7.1.1, RFC 9773 §4.1).  Every URL is held
against `TrustedOrigins`, as in ``exchange``.
"""

from __future__ import annotations

from datetime import datetime

from broker.protocol.exchange import (
    JSON,
    MAX_ANSWER_BYTES,
    Answer,
    HttpRequest,
    HttpResponse,
    failure_of,
)
from broker.protocol.headers import parse_media_type, parse_retry_after
from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins
from broker.protocol.resources import Directory

__all__ = ["directory_request", "parse_directory", "parse_read", "read_request"]


def directory_request(directory_url: str) -> HttpRequest:
    """Return the one request of ACME that is not signed (RFC 8555 §7.1.1)."""
    return HttpRequest("GET", directory_url, {"Accept": JSON})


def read_request(url: str, origins: TrustedOrigins) -> HttpRequest:
    """Return a request that nobody signs, for a resource that everyone may read.

    Raises:
        ProtocolError: The URL leads to an origin that is not trusted.
    """
    return HttpRequest("GET", origins.verify_url(url, "request URL"), {"Accept": JSON})


def parse_read(url: str, response: HttpResponse, now: datetime) -> Answer:
    """Return the answer to a request that nobody signed.

    Raises:
        Problem: The CA refused.
        Unavailable: The CA cannot answer now.
        ProtocolError: The CA broke the protocol.
    """
    if response.is_cut:
        raise ProtocolError(f"{url} answered more than {MAX_ANSWER_BYTES} bytes")
    if not 200 <= response.status <= 299:
        raise failure_of(url, response, now)
    return Answer(
        url=url,
        status=response.status,
        body=response.body,
        media_type=parse_media_type(response.header("Content-Type")),
        location=None,
        retry_at=parse_retry_after(response.header("Retry-After"), now),
        next_url=None,
    )


def parse_directory(
    url: str, response: HttpResponse, origins: TrustedOrigins, now: datetime
) -> Directory:
    """Return the directory in an answer, every URL in it held against *origins*.

    Raises:
        Problem: The CA refused.
        Unavailable: The CA cannot answer now.
        ProtocolError: The CA broke the protocol.
    """
    directory = Directory.from_json(parse_read(url, response, now).json())
    for name, target in (
        ("newNonce", directory.new_nonce),
        ("newAccount", directory.new_account),
        ("newOrder", directory.new_order),
        ("revokeCert", directory.revoke_cert),
        ("keyChange", directory.key_change),
        ("renewalInfo", directory.renewal_info),
    ):
        if target is not None:
            origins.verify_url(target, f"directory.{name}")
    return directory
