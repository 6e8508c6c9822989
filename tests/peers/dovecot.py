"""Dovecot, as packaged, that serves IMAP with STARTTLS."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents.config import StartTls
from tests.peers.installation import installed
from tests.peers.tls_server import TlsServer

CONFIG: Final = """\
protocols = imap
listen = 127.0.0.1
base_dir = {directory}/run
instance_name = {directory}
log_path = /dev/stderr
ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
mail_location = maildir:{directory}/mail
{users}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
{more}
"""

OF_ONE_USER: Final = "default_internal_user = {user}\ndefault_login_user = {user}"
"""What an unprivileged Dovecot needs: all of it is one user."""


class Dovecot(TlsServer):
    """A Dovecot, reloaded by SIGHUP to its master."""

    name = "dovecot"
    starttls = StartTls.IMAP

    def command(self) -> Sequence[str]:
        """Write dovecot.conf and return the command line."""
        self.write()
        return [str(installed("dovecot")), "-F", "-c", str(self.directory / "dovecot.conf")]

    def write(self) -> None:
        """Write dovecot.conf."""
        users = "" if os.geteuid() == 0 else OF_ONE_USER.format(user=os.environ.get("USER", ""))
        text = CONFIG.format(
            directory=self.directory,
            certificate=self.certificate,
            key=self.key,
            port=self.port,
            users=users,
            more=self.more,
        )
        (self.directory / "dovecot.conf").write_text(text, "utf-8")

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Check the configuration, then signal the master."""
        return {
            "signal": "HUP",
            "pid_file": str(self.directory / "run" / "master.pid"),
            "process": str(installed("dovecot")),
            "check": ("/usr/bin/doveconf", "-c", str(self.directory / "dovecot.conf"), "-n"),
        }
