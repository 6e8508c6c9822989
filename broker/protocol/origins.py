"""Which places a CA may send us to.

A directory, a Location header, every URL inside an object: each is chosen by the CA, and each is
where we send a signed request next.  A hostile one would name our own network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NoReturn
from urllib.parse import urlsplit

from broker.protocol.members import MAX_URL_CHARS, ProtocolError
from broker.protocol.problems import printable

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class TrustedOrigins:
    """The places a CA may send us to: its directory's own, and those the operator added."""

    def __init__(self, directory_url: str, others: Iterable[str] = ()) -> None:
        """Take the directory URL and further origins such as ``https://ca.example:8443``.

        Raises:
            ProtocolError: One of them is no https URL.
        """
        self._origins = frozenset(
            _origin_of(url, "directory or allowed origin") for url in (directory_url, *others)
        )

    def verify_url(self, url: str, what: str) -> str:
        """Return *url*, proven to be https and of a trusted origin.

        Raises:
            ProtocolError: It is not; *what* says which URL it was.
        """
        origin = _origin_of(url, what)
        if origin not in self._origins:
            trusted = ", ".join(f"https://{host}:{port}" for host, port in sorted(self._origins))
            raise ProtocolError(
                f"{what}: '{printable(url, 300)}' leads to another origin, expected {trusted}"
            )
        return url


def _origin_of(url: str, what: str) -> tuple[str, int]:
    if len(url) > MAX_URL_CHARS or _VISIBLE.fullmatch(url) is None:
        _refuse(url, what, f"is no URL of at most {MAX_URL_CHARS} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        _refuse(url, what, "is no URL")
    if parts.scheme != "https" or not host:
        _refuse(url, what, "is no https URL")
    # A backslash or user information makes readers disagree on where the host begins.
    if "@" in parts.netloc or "\\" in url or parts.fragment:
        _refuse(url, what, "has user information, a backslash or a fragment")
    return host.lower().removesuffix("."), port if port is not None else 443


def _refuse(url: str, what: str, sentence: str) -> NoReturn:
    raise ProtocolError(f"{what}: '{printable(url, 300)}' {sentence}")
