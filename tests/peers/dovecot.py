"""Dovecot, as packaged, that serves IMAP with STARTTLS."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agents.config import StartTls
from tests.peers.installation import installed
from tests.peers.tls_server import TlsServer

CONFIG: Final = """\
protocols = imap
listen = 127.0.0.1
base_dir = {run}
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

    def __init__(self, tmp: Path, pair: Path) -> None:
        super().__init__(tmp, pair)
        # Paths of sockets are short (unix(7)), and those of tests may be long.
        self._run = Path(tempfile.mkdtemp(prefix="penstock-dovecot-"))
        self._run.chmod(0o755)

    def stop(self) -> None:
        """End it, and remove the folder of its sockets."""
        super().stop()
        shutil.rmtree(self._run, ignore_errors=True)

    def command(self) -> Sequence[str]:
        """Write dovecot.conf and return the command line."""
        self.write()
        return [str(installed("dovecot")), "-F", "-c", str(self.directory / "dovecot.conf")]

    def write(self) -> None:
        """Write dovecot.conf."""
        users = "" if os.geteuid() == 0 else OF_ONE_USER.format(user=os.environ.get("USER", ""))
        text = CONFIG.format(
            directory=self.directory,
            run=self._run,
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
            "pid_file": str(self._run / "master.pid"),
            "process": str(installed("dovecot")),
            "check": ("/usr/bin/doveconf", "-c", str(self.directory / "dovecot.conf"), "-n"),
        }
