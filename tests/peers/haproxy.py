"""HAProxy, as packaged, ending TLS for one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.peers.installation import installed
from tests.peers.tls_server import TlsServer

CONFIG: Final = """\
global
    maxconn 64
    nbthread 1
    log stderr local0 warning
{more}
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend host
    bind 127.0.0.1:{port} ssl crt {certificate}
    http-request return status 200 content-type text/plain string haproxy
"""


class HAProxy(TlsServer):
    """An HAProxy with a master, reloaded by SIGUSR2 to it; key and chain lie in one file."""

    name = "haproxy"
    is_combined = True

    def command(self) -> Sequence[str]:
        """Write haproxy.cfg and return the command line."""
        self.write()
        return [*self._program(), "-W", "-p", str(self.directory / "haproxy.pid")]

    def write(self) -> None:
        """Write haproxy.cfg."""
        text = CONFIG.format(port=self.port, certificate=self.certificate, more=self.more)
        (self.directory / "haproxy.cfg").write_text(text, "utf-8")

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Check the configuration, then signal the master."""
        return {
            "signal": "USR2",
            "pid_file": str(self.directory / "haproxy.pid"),
            "process": str(installed("haproxy")),
            "check": (*self._program(), "-c", "-q"),
        }

    def _program(self) -> tuple[str, ...]:
        return (str(installed("haproxy")), "-f", str(self.directory / "haproxy.cfg"))
