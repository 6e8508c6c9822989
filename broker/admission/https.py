"""HTTPS to the broker and to the API server: the roots of one file, bounded answers, nothing else.

No redirect is followed, no proxy of the environment asked, no cookie kept.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from broker.issuance.errors import Broken, Unreachable

__all__ = ["Https", "TooLarge", "read_token"]

CONNECT_SECONDS: Final = 5.0
"""How long a connection may take to be made, in seconds; within a cluster it takes milliseconds."""

REQUEST_SECONDS: Final = 30.0
"""How long a request may take in all, in seconds, where nothing else is said: a page of a list from
an API server that is busy."""

CONNECTIONS: Final = 64
"""Most connections at once."""


class TooLarge(Unreachable):
    """The answer has more bytes than are read: ask for less at once."""


def read_token(read: Callable[[], bytes]) -> str:
    """Return the token that *read* gives.

    Raises:
        Unreachable: It cannot be read now; the kubelet writes it.
    """
    try:
        token = read().decode("ascii").strip()
    except (Broken, UnicodeDecodeError) as error:
        raise Unreachable(f"our own token cannot be read: {error}") from error
    if not token.isprintable() or " " in token:
        raise Unreachable("our own token cannot be read: it is no token")
    return token


class Https:
    """One session for as long as its file of roots stays the same."""

    def __init__(
        self,
        anchors: Path,
        user_agent: str,
        *,
        least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    ) -> None:
        self._anchors = anchors
        self._user_agent = user_agent
        self._least = least
        self._session: aiohttp.ClientSession | None = None
        self._made_of: tuple[int, int, int] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def session(self) -> aiohttp.ClientSession:
        """Return the session; a new one when the roots have changed.

        Raises:
            Unreachable: The roots cannot be read now; who writes them will.
        """
        made_of = self._stamp()
        if self._session is None or made_of != self._made_of:
            fresh = self._open()
            if self._session is not None:
                self._let_go(self._session)
            self._session, self._made_of = fresh, made_of
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await asyncio.gather(*self._closing)

    @staticmethod
    async def read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
        """Return the body of *answer*; raises TooLarge when it has more than *limit* bytes."""
        octets = bytearray()
        async for part in answer.content.iter_any():
            octets += part
            if len(octets) > limit:
                answer.close()
                raise TooLarge(f"{answer.url}: answer is larger than {limit} bytes")
        return bytes(octets)

    def _let_go(self, session: aiohttp.ClientSession) -> None:
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._anchors.stat()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unreachable(f"roots {self._anchors} cannot be read: {reason}") from error
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _open(self) -> aiohttp.ClientSession:
        try:
            context = ssl.create_default_context(cafile=str(self._anchors))
        except (OSError, ssl.SSLError) as error:
            raise Unreachable(f"roots {self._anchors} cannot be used: {error}") from error
        context.minimum_version = self._least
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context),
            timeout=timeout,
            headers={
                "User-Agent": self._user_agent,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
