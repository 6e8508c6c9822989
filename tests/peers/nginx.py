"""nginx, as packaged, with one TLS host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.peers.installation import installed
from tests.peers.tls_server import TlsServer

CONFIG: Final = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {more}
    server {{
        listen 127.0.0.1:{port} ssl;
        {pairs}
        return 200 "nginx\\n";
    }}
}}
"""


class Nginx(TlsServer):
    """An nginx with one worker, reloaded by SIGHUP to its master."""

    name = "nginx"
    more_certificates: tuple[Path, ...] = ()
    """Folders of further pairs for the same host, of other kinds of keys."""

    def command(self) -> Sequence[str]:
        """Write nginx.conf and return the command line."""
        self.write()
        return self._program()

    def write(self) -> None:
        """Write nginx.conf."""
        files = [(self.certificate, self.key)]
        files += [(one / "fullchain.pem", one / "privkey.pem") for one in self.more_certificates]
        pairs = [f"ssl_certificate {chain}; ssl_certificate_key {key};" for chain, key in files]
        text = CONFIG.format(
            directory=self.directory,
            port=self.port,
            pairs=" ".join(pairs),
            more=self.more,
        )
        (self.directory / "nginx.conf").write_text(text, "utf-8")

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Check the configuration, then signal the master."""
        return {
            "signal": "HUP",
            "pid_file": str(self.directory / "nginx.pid"),
            "process": str(installed("nginx")),
            "check": (*self._program(), "-t", "-q"),
        }

    def _program(self) -> tuple[str, ...]:
        folder = str(self.directory)
        config = str(self.directory / "nginx.conf")
        return (str(installed("nginx")), "-p", folder, "-e", "stderr", "-c", config)
