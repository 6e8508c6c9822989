"""A small TLS server, a program of its own: it takes up its pair anew when it gets SIGHUP.

Run by its path, with the folder of the pair, its port and the file for its process id.  It knows
nothing of agents and brokers, as the servers do that people have.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Final

__all__ = ["main"]

CLIENT_SECONDS: Final = 5.0
"""How long one client may take for its handshake, in seconds; the next one waits meanwhile."""


def main(folder: Path, port: int, pid_file: Path) -> None:
    """Serve until SIGTERM comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def take_up(*_: object) -> None:
        context.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")

    signal.signal(signal.SIGHUP, take_up)
    with socket.create_server(("127.0.0.1", port)) as listening:
        pid_file.touch(mode=0o600)
        pid_file.write_text(f"{os.getpid()}\n", "ascii")
        while True:
            plain, _ = listening.accept()
            plain.settimeout(CLIENT_SECONDS)
            _serve(context, plain)


def _serve(context: ssl.SSLContext, plain: socket.socket) -> None:
    try:
        with plain, context.wrap_socket(plain, server_side=True) as client:
            client.recv(1024)
            client.sendall(b"hello from the node\n")
    except OSError:
        # Before its first pair it has nothing to show; and clients come and go.
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
