"""The node's TLS server: a program of its own that takes up its pair at SIGHUP."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker.demo
from broker.demo.serving import look
from tests.peers import authority, process

PROGRAM = Path(broker.demo.__file__).with_name("tls_server.py")
NAME = "mail.demo.internal"


class Server:
    """The program with a folder and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = process.free_port()
        self.root = authority.make_root("demo")
        self.pid_file = folder / "server.pid"
        command = [sys.executable, "-I", str(PROGRAM), str(folder), str(self.port)]
        self.running = subprocess.Popen([*command, str(self.pid_file)])

    def pair(self) -> None:
        """Put another pair into its folder."""
        made = authority.make_server(self.root, [NAME])
        (self.folder / "fullchain.pem").write_bytes(made.certificate_pem)
        (self.folder / "privkey.pem").write_bytes(made.key_pem())

    def reload(self) -> None:
        """Tell it, as the agent does."""
        os.kill(int(self.pid_file.read_text("ascii")), signal.SIGHUP)

    def context(self) -> ssl.SSLContext:
        """Return what trusts its root alone."""
        return ssl.create_default_context(cadata=self.root.certificate_pem.decode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run it without a pair."""
    made = Server(tmp_path)
    try:
        process.wait_until(lambda: process.is_listening(made.port), 20, "the server")
        yield made
    finally:
        made.running.terminate()
        made.running.wait(10)


async def test_it_serves_a_pair_once_it_is_told(server: Server) -> None:
    """It runs without one, and shows nothing until then; a new pair waits for SIGHUP too."""
    server.pair()
    with pytest.raises(OSError, match=r"."):
        await look(NAME, server.port, server.context())
    server.reload()
    first = await look(NAME, server.port, server.context())
    server.pair()
    assert (await look(NAME, server.port, server.context())) == first
    server.reload()
    assert (await look(NAME, server.port, server.context())).fingerprint != first.fingerprint
