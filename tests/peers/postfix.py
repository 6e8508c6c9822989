"""Postfix, as packaged, that receives mail with STARTTLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agents.config import StartTls
from tests.peers.installation import installed
from tests.peers.process import STOP_SECONDS, PeerFailed, is_group_alive, wait_until
from tests.peers.tls_server import TlsServer

MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {data}
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {certificate}
smtpd_tls_session_cache_database =
{more}
"""

MASTER: Final = """\
127.0.0.1:{port} inet n - n - {most} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(TlsServer):
    """A Postfix with a queue of its own; it starts only for root."""

    name = "postfix"
    starttls = StartTls.SMTP

    most_processes: str | int = "-"
    """Most processes that receive mail; as many as Postfix likes, unless another is given.  Each
    new one reads the configuration as it is then, whether that was taken by a reload or not."""

    _data = Path("/nonexistent")
    """Folder that belongs to Postfix's user, who may not pass through a test's own."""

    def command(self) -> Sequence[str]:
        """Write main.cf and master.cf and return the command line."""
        if os.geteuid() != 0:
            raise PeerFailed("postfix starts only for root")
        for folder in ("etc", "queue"):
            (self.directory / folder).mkdir(exist_ok=True)
        self._data = Path(tempfile.mkdtemp(prefix="penstock-postfix-"))
        shutil.chown(self._data, "postfix")
        services = MASTER.format(port=self.port, most=self.most_processes)
        (self.directory / "etc" / "master.cf").write_text(services, "ascii")
        self.write()
        return [*self._program(), "start-fg"]

    def write(self) -> None:
        """Write main.cf."""
        text = MAIN.format(
            directory=self.directory,
            data=self._data,
            certificate=self.certificate,
            key=self.key,
            more=self.more,
        )
        (self.directory / "etc" / "main.cf").write_text(text, "ascii")

    def is_ready(self) -> bool:
        """See that it greets."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connected:
                return connected.recv(4) == b"220 "
        except OSError:
            return False

    def stop(self) -> None:
        """End it with its master, which leads a group of its own, and remove its folder."""
        master = self.directory / "queue" / "pid" / "master.pid"
        group = int(master.read_text("ascii")) if master.exists() else 0
        super().stop()
        if group > 1:
            self._end(group)
        master.unlink(missing_ok=True)
        shutil.rmtree(self._data, ignore_errors=True)

    def _end(self, group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        with contextlib.suppress(PeerFailed):
            wait_until(lambda: not is_group_alive(group), STOP_SECONDS, "postfix ends")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    @property
    def reloading(self) -> Mapping[str, Any]:
        """Run ``postfix reload``, which reads the configuration first."""
        return {"command": (*self._program(), "reload")}

    def _program(self) -> tuple[str, ...]:
        return (str(installed("postfix")), "-c", str(self.directory / "etc"))
