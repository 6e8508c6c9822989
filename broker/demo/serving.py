"""A real TLS server and a real TLS client, to see the certificate at work."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from broker.demo.processes import DemoFailed

__all__ = ["Seen", "look", "serve_and_look"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client saw once its verification had passed."""

    protocol: str
    fingerprint: str
    """SHA-256 of the leaf that was served."""
    answer: str


async def serve_and_look(name: str, *, chain: Path, key: Path, root: Path) -> Seen:
    """Serve *chain* on loopback, connect as *name* trusting *root* alone, and return what came.

    Raises:
        DemoFailed: The client did not accept the certificate.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, key)
    server = await asyncio.start_server(_greet, "127.0.0.1", 0, ssl=server_side)
    try:
        port = server.sockets[0].getsockname()[1]
        client_side = ssl.create_default_context(cafile=str(root))
        return await look(name, port, client_side)
    except ssl.SSLError as error:
        raise DemoFailed(f"the TLS client did not accept the certificate: {error}") from error
    finally:
        server.close()
        await server.wait_closed()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"hello over TLS\n")
    await writer.drain()
    writer.close()


async def look(name: str, port: int, context: ssl.SSLContext) -> Seen:
    """Return what is served as *name* at a port of loopback to who trusts by *context*."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name
    )
    connection = writer.get_extra_info("ssl_object")
    writer.write(b"who is there?\n")
    await writer.drain()
    answer = (await reader.readline()).decode().strip()
    leaf = connection.getpeercert(binary_form=True)
    protocol = connection.version()
    writer.close()
    return Seen(protocol, hashlib.sha256(leaf).hexdigest(), answer)
