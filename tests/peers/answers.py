"""What serves the answers of clients that only write files: http-01 and tls-alpn-01.

dehydrated and uacme leave answering to others: a web server for one challenge, something
that speaks ``acme-tls/1`` for the other, a name server's own tool for the third.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.peers import authority
from tests.peers.client import DnsUpdates
from tests.peers.installation import installed
from tests.peers.stock import Place

ALPN: Final = "acme-tls/1"
"""The protocol that a tls-alpn-01 answer is given under (RFC 8737 §6.2)."""

HTTP_PATH: Final = "/.well-known/acme-challenge"


@contextlib.asynccontextmanager
async def web_root(place: Place, folder: Path) -> AsyncIterator[None]:
    """Serve the files of *folder* where http-01 is looked for."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    application = web.Application()
    application.router.add_static(HTTP_PATH, folder)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, place.address, place.http_port).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def alpn_root(place: Place, folder: Path) -> AsyncIterator[None]:
    """Answer tls-alpn-01 with the certificates that stand in *folder* under the asked name."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([ALPN])
    root = authority.make_root("nobody asks for this one")
    certificate, key, _ = authority.write_server_files(
        folder / "unnamed", authority.make_server(root, ["unnamed.test"]), root
    )
    context.load_cert_chain(certificate, key)

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        answer = folder / f"{name}.crt.pem"
        if answer.exists():
            chosen = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            chosen.set_alpn_protocols([ALPN])
            chosen.load_cert_chain(answer, folder / f"{name}.key.pem")
            connection.context = chosen

    context.sni_callback = choose

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(hang_up, place.address, place.tls_port, ssl=context)
    async with server:
        yield


def write_nsupdate(folder: Path, updates: DnsUpdates) -> Path:
    """Write a program ``NAME add|delete VALUE`` that sets a TXT record by DNS update."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "update.key"
    key.touch(mode=0o600)
    key.write_text(
        f'key "{updates.tsig_name}" {{ algorithm {updates.tsig_algorithm}; '
        f'secret "{updates.tsig_secret_b64}"; }};\n',
        "ascii",
    )
    script = folder / "txt-record"
    script.write_text(
        "#!/bin/sh\n"
        'ttl=""; [ "$2" = add ] && ttl=" 1"\n'
        f"printf 'server {updates.host} {updates.port}\\nupdate %s %s.%s TXT \"%s\"\\nsend\\n'"
        f' "$2" "$1" "$ttl" "$3" | {shlex.quote(str(installed("nsupdate")))}'
        f" -v -k {shlex.quote(str(key))}\n",
        "ascii",
    )
    script.chmod(0o755)
    return script
