"""OpenLDAP's server, as packaged, with STARTTLS."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from agents.config import StartTls
from tests.peers.installation import find_command, installed
from tests.peers.tls_server import TlsServer

CONFIG: Final = """\
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database config
rootdn gidNumber={group}+uidNumber={user},cn=peercred,cn=external,cn=auth
"""

RENEWED: Final = """\
dn: cn=config
changetype: modify
replace: olcTLSCertificateFile
olcTLSCertificateFile: {certificate}
-
replace: olcTLSCertificateKeyFile
olcTLSCertificateKeyFile: {key}
"""
"""The same files named again: slapd reads them when it is told, and only then."""


class Slapd(TlsServer):
    """A slapd; it reads its certificate again when its own configuration is changed over LDAP."""

    name = "slapd"
    starttls = StartTls.LDAP

    def command(self) -> Sequence[str]:
        """Write slapd.conf and return the command line."""
        text = CONFIG.format(
            directory=self.directory,
            certificate=self.certificate,
            key=self.key,
            user=os.geteuid(),
            group=os.getegid(),
        )
        (self.directory / "slapd.conf").write_text(text, "utf-8")
        self.write()
        urls = f"ldap://127.0.0.1:{self.port} {self._socket}"
        config = str(self.directory / "slapd.conf")
        return [str(installed("slapd")), "-d", "none", "-h", urls, "-f", config]

    def write(self) -> None:
        """Write the change that a reload makes."""
        text = RENEWED.format(certificate=self.certificate, key=self.key)
        (self.directory / "renewed.ldif").write_text(text + self.more, "utf-8")

    def break_configuration(self) -> None:
        """Have the change name an attribute that there isn't."""
        self.more = "-\nreplace: olcPenstock\nolcPenstock: here\n"
        self.write()

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Change the configuration over the local socket, as root's own mapping allows."""
        program = find_command("ldapmodify") or "/usr/bin/ldapmodify"
        change = str(self.directory / "renewed.ldif")
        return {"command": (program, "-Q", "-Y", "EXTERNAL", "-H", self._socket, "-f", change)}

    @property
    def _socket(self) -> str:
        return "ldapi://" + quote(str(self.directory / "ldapi"), safe="")
