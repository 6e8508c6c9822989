"""Apache httpd, as packaged, with one TLS host that it is given files for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.peers.installation import installed
from tests.peers.tls_server import TlsServer

MODULES: Final = Path("/usr/lib/apache2/modules")

CONFIG: Final = """\
ServerRoot "{directory}"
ServerName localhost
User nobody
Group nogroup
PidFile "{directory}/httpd.pid"
Mutex file:{directory} default
ErrorLog /dev/stderr
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule ssl_module {modules}/mod_ssl.so
Listen 127.0.0.1:{port} https
StartServers 1
ServerLimit 2
ThreadsPerChild 4
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
SSLSessionCache none
{more}
<VirtualHost 127.0.0.1:{port}>
    SSLEngine on
    SSLCertificateFile "{certificate}"
    SSLCertificateKeyFile "{key}"
    DocumentRoot "{directory}/www"
</VirtualHost>
"""


class Httpd(TlsServer):
    """An httpd, reloaded by its own command, which checks the configuration first."""

    name = "httpd"

    def command(self) -> Sequence[str]:
        """Write httpd.conf and return the command line."""
        (self.directory / "www").mkdir(exist_ok=True)
        self.write()
        return [*self._program(), "-D", "FOREGROUND"]

    def write(self) -> None:
        """Write httpd.conf."""
        text = CONFIG.format(
            directory=self.directory,
            modules=MODULES,
            port=self.port,
            certificate=self.certificate,
            key=self.key,
            more=self.more,
        )
        (self.directory / "httpd.conf").write_text(text, "utf-8")

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Run ``apache2 -k graceful``."""
        return {"command": (*self._program(), "-k", "graceful")}

    def _program(self) -> tuple[str, ...]:
        return (str(installed("apache2")), "-f", str(self.directory / "httpd.conf"))
