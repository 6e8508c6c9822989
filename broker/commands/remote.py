"""Commands for a broker elsewhere: by its operator API, as whoever a certificate or token proves.

Which broker is said once, before the command; what it answers and refuses reads the same as from
the socket.  No proxy of the environment is asked, and no redirect followed.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from broker.commands.failures import CommandFailed, Misconfigured

__all__ = ["Server", "ask_server", "choose", "chosen", "parse_server"]

MAX_TOKEN_BYTES: Final = 16 * 1024
"""Largest token that is read, in bytes: twice what the broker takes."""

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Largest answer that is read, in bytes; a list of a thousand rows has under one MiB, an exported
audit of a year some hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A broker elsewhere, and what is shown to it."""

    host: str
    port: int
    path: str
    certificate: Path | None
    key: Path | None
    anchors: Path | None
    token: str | None
    """A reference, ``file:…`` or ``env:…``; never the token itself, which others could read in
    the list of processes."""

    @property
    def url(self) -> str:
        """Return where it is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{self.path}"


_chosen: Server | None = None


def choose(server: Server | None) -> None:
    """Have the commands of this process asked of *server*; None: of the one on this machine."""
    global _chosen
    _chosen = server


def chosen() -> Server | None:
    """Return the broker elsewhere that was chosen, if any."""
    return _chosen


def parse_server(
    url: str,
    *,
    certificate: Path | None,
    key: Path | None,
    anchors: Path | None,
    token: str | None,
) -> Server:
    """Return the server that options describe.

    Raises:
        Misconfigured: They do not fit together.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise Misconfigured(f"server '{url}' is no URL such as https://acme.corp.example:8446")
    if parts.username is not None:
        raise Misconfigured("a server's URL has no user name in it", "give a certificate or token")
    if (certificate is None) != (key is None):
        raise Misconfigured("--client-certificate and --client-key go together")
    if certificate is None and token is None:
        raise Misconfigured(
            "nothing says who you are", "give --client-certificate and --client-key, or --token"
        )
    return Server(
        host=parts.hostname,
        port=port or 443,
        path=parts.path.rstrip("/"),
        certificate=certificate,
        key=key,
        anchors=anchors,
        token=token,
    )


def ask_server(
    server: Server,
    command: str,
    arguments: Mapping[str, object],
    reason: str | None,
    seconds: float,
) -> Any:
    """Have *command* done there and return its answer; *seconds* is the longest wait.

    Raises:
        CommandFailed: It could not be done; says why.
    """
    from broker.web.routes import route_of

    route = route_of(command)
    headers = {"Accept": "application/json"}
    if server.token is not None:
        headers["Authorization"] = f"Bearer {_read_token(server.token)}"
    target, body = f"{server.path}{route.path}", None
    if route.method == "GET":
        query = urlencode({name: _word(value) for name, value in arguments.items()})
        target += f"?{query}" if query else ""
    else:
        headers["Content-Type"] = "application/json"
        sent = dict(arguments) | ({"reason": reason} if reason is not None else {})
        body = json.dumps(sent).encode("utf-8")
    status, said = _exchange(server, (route.method, target, headers, body), seconds)
    if status != 200:
        raise _failure(server, status, said)
    return said


def _exchange(
    server: Server, request: tuple[str, str, dict[str, str], bytes | None], seconds: float
) -> tuple[int, Any]:
    connection = http.client.HTTPSConnection(
        server.host, server.port, timeout=seconds, context=_context(server)
    )
    method, target, headers, body = request
    try:
        connection.request(method, target, body=body, headers=headers)
    except ssl.SSLCertVerificationError as error:
        raise CommandFailed(
            f"{server.url} is not believed: {error.verify_message}",
            "name the roots that certify it with --anchors",
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{server.url} cannot be reached: {reason}") from error
    try:
        response = connection.getresponse()
        read = response.read(MAX_ANSWER_BYTES + 1)
        if len(read) > MAX_ANSWER_BYTES:
            raise ValueError(f"answer is larger than {MAX_ANSWER_BYTES} bytes")
        return response.status, json.loads(read)
    except ssl.SSLError as error:
        # In TLS 1.3 a certificate is refused after the client thinks that all is well.
        raise CommandFailed(
            f"{server.url} ended the connection: {error.reason or error}",
            "it may not believe the client certificate",
        ) from error
    except http.client.RemoteDisconnected as error:
        # asyncio ends a connection that fails so late without an alert.
        believed = "it may not believe the client certificate; " if server.certificate else ""
        raise CommandFailed(
            f"{server.url} ended the connection without an answer",
            f"{believed}whether it was done is not known: look before asking again",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandFailed(
            f"{server.url} gave no usable answer: {error}",
            "whether it was done is not known: look before asking again",
        ) from error
    finally:
        connection.close()


def _failure(server: Server, status: int, said: Any) -> CommandFailed:
    if not isinstance(said, dict) or "detail" not in said:
        return CommandFailed(f"{server.url} answered {status}, and not as a broker does")
    hint = said.get("hint")
    return CommandFailed(str(said["detail"]), hint if isinstance(hint, str) else None)


def _context(server: Server) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if server.anchors is None else str(server.anchors)
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if server.certificate is not None:
            # Without an answer here OpenSSL would ask at the terminal, in the midst of a script.
            context.load_cert_chain(server.certificate, server.key, password=_no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Misconfigured(f"certificate, key or anchors cannot be used: {reason}") from error
    return context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted, and commands ask for no passphrase")


def _read_token(reference: str) -> str:
    scheme, _, target = reference.partition(":")
    if scheme == "env" and target:
        text = os.environ.get(target)
        if text is None:
            raise Misconfigured(f"token: {target} is not set in the environment")
    elif scheme == "file" and target:
        try:
            with Path(target).open("rb") as file:
                text = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Misconfigured(f"token file {target} cannot be read: {reason}") from error
    else:
        # What stands here may be the token itself, and is not repeated.
        raise Misconfigured("--token is no reference", "expected file:PATH or env:NAME")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Misconfigured("what --token refers to is no token")
    return token


def _word(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
