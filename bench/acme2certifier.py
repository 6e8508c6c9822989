"""acme2certifier with its ACME handler: the nearest competitor, run as a program of its own.

Nothing of it enters this project.  It runs under gunicorn, with TLS and threads, on SQLite, which
is its own default store.  Its look at http-01 is switched off, since that is bound to port 80:
it is spared work that Penstock does.
"""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.generator import Target
from tests.peers import authority, process
from tests.peers.installation import VenvPeer, command_of, is_venv_whole, venv_home
from tests.peers.installing import install_venv

__all__ = ["Acme2certifier"]

PEER: Final = VenvPeer(
    "acme2certifier",
    "acme2certifier",
    Path(__file__).resolve().parent / "acme2certifier.txt",
    "gunicorn.app.wsgiapp:run",
)

APPLICATION: Final = "acme2certifier.share.acme2certifier_wsgi:application"

THREADS: Final = 32
"""Requests that it answers at a time: as many as the largest number of clients measured."""

WORKER_SECONDS: Final = 120
"""Longest time one worker may be silent before gunicorn ends it; an order takes it over 1 s."""


class Acme2certifier(process.Peer):
    """One acme2certifier in front of the CA at *upstream*."""

    name = "acme2certifier"

    def __init__(self, tmp: Path, upstream: Target) -> None:
        super().__init__(tmp)
        self._upstream = upstream
        self.port = process.free_port()
        self._root = authority.make_root("benchmark root")
        self.ca_bundle = tmp / "root.pem"

    @property
    def version(self) -> str:
        """The version that is pinned."""
        return PEER.version

    @property
    def target(self) -> Target:
        """Its directory; names need no proof."""
        url = f"https://127.0.0.1:{self.port}/directory"
        return Target(directory_url=url, ca_bundle=self.ca_bundle)

    def command(self) -> Sequence[str]:
        """Write the configuration, installing the program where it is missing."""
        if not is_venv_whole(venv_home(PEER)):
            install_venv(PEER)
        self.ca_bundle.write_bytes(self._root.certificate_pem)
        certificate, key = self._identity()
        self._write_config()
        listen = ["--bind", f"127.0.0.1:{self.port}", "--certfile", certificate, "--keyfile", key]
        worker = ["--worker-class", "gthread", "--workers", "1", "--threads", str(THREADS)]
        patience = ["--timeout", str(WORKER_SECONDS), "--keep-alive", "75"]
        program = str(command_of(venv_home(PEER), PEER.name))
        return [program, *listen, *worker, *patience, APPLICATION]

    def environment(self) -> dict[str, str]:
        """Return the environment: where its configuration lies, and the switch named above."""
        return process.clean_environment(
            self.directory,
            {
                "ACME_SRV_CONFIGFILE": str(self.directory / "acme_srv.cfg"),
                "ACME2CERTIFIER_BASE_DIR": str(self.directory),
                "ACME2CERTIFIER_I_KNOW_THE_RISK": "1",
            },
        )

    def is_ready(self) -> bool:
        """Ask for the directory."""
        return process.is_answering(self.target.directory_url, self.ca_bundle)

    def _identity(self) -> tuple[str, str]:
        made = authority.make_server(self._root, ["127.0.0.1"])
        certificate, key, _ = authority.write_server_files(self.directory, made, self._root)
        return str(certificate), str(key)

    def _write_config(self) -> None:
        directory = urlsplit(self._upstream.directory_url)
        handler = {
            "handler_module": "acme2certifier.cahandlers.acme_ca_handler",
            "acme_url": f"{directory.scheme}://{directory.netloc}",
            "directory_path": directory.path,
            "acme_keyfile": str(self.directory / "account.json"),
            "acme_account_email": "bench@example.test",
            "ssl_verify": "False",
        }
        if self._upstream.binding is not None:
            handler["eab_kid"], handler["eab_hmac_key"] = self._upstream.binding
        config = configparser.ConfigParser(interpolation=None)
        config.read_dict(
            {
                "DEFAULT": {"debug": "False"},
                "CAhandler": handler,
                "DBhandler": {
                    "handler": "wsgi",
                    "dbfile": str(self.directory / "acme2certifier.db"),
                },
                "Challenge": {"challenge_validation_disable": "True"},
            }
        )
        with (self.directory / "acme_srv.cfg").open("w", encoding="utf-8") as file:
            config.write(file)
