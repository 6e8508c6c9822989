"""OpenSSH's server on loopback, behind which a device's command line is played."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.peers import process
from tests.peers.installation import find_command, installed

CONFIG: Final = """\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
PidFile none
UsePAM no
PermitRootLogin yes
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {directory}/authorized_keys
ForceCommand {program}
"""

PRIVILEGE_FOLDER: Final = Path("/run/sshd")
"""Empty folder that Debian's sshd wants to be shut up in; its service would make it."""


class Sshd(process.Peer):
    """An sshd that runs one program for whoever comes, whatever they ask for.

    The program finds what was asked for in ``SSH_ORIGINAL_COMMAND``.
    """

    name = "sshd"

    def __init__(self, tmp: Path, program: Path) -> None:
        super().__init__(tmp)
        self.port = process.free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = self.directory / "client_key"
        self.known_hosts = self.directory / "known_hosts"
        self._program = program

    def command(self) -> Sequence[str]:
        """Make keys, write sshd_config and return the command line."""
        if os.geteuid() == 0:
            PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
        host = self._make_key("host_key")
        client = self._make_key("client_key")
        (self.directory / "authorized_keys").write_text(client, "ascii")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host}", "ascii")
        config = self.directory / "sshd_config"
        config.write_text(
            CONFIG.format(directory=self.directory, port=self.port, program=self._program), "ascii"
        )
        return [str(installed("sshd")), "-D", "-e", "-f", str(config)]

    def is_ready(self) -> bool:
        """See that it listens."""
        return process.is_listening(self.port)

    def settings(self, **commands: str) -> str:
        """Return a file of settings for the driver, with the device's *commands*."""
        members = {
            "host": "127.0.0.1",
            "user": self.user,
            "identity": str(self.identity),
            "known_hosts": str(self.known_hosts),
            **commands,
        }
        lines = [f'{key} = "{value}"' for key, value in members.items()]
        return "\n".join([*lines, f"port = {self.port}", "seconds = 30"]) + "\n"

    def _make_key(self, name: str) -> str:
        path = self.directory / name
        if not path.exists():
            program = find_command("ssh-keygen") or "ssh-keygen"
            command = [program, "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.with_suffix(".pub").read_text("ascii")
