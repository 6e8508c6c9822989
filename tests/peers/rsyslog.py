"""rsyslog as the collector: syslog over TLS, both sides by certificate, into a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from tests.peers import authority, process
from tests.peers.installation import installed

__all__ = ["Driver", "Rsyslog"]

Driver = Literal["gtls", "ossl"]
"""Which TLS library rsyslog uses: GnuTLS or OpenSSL."""

CLIENT_NAME: Final = "penstock.example"
"""The name in the certificate of whoever may send."""

CONFIG: Final = """\
global(
  workDirectory="{directory}"
  maxMessageSize="8k"
  defaultNetstreamDriver="{driver}"
  defaultNetstreamDriverCAFile="{root}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}"
)
module(
  load="imtcp"
  streamDriver.name="{driver}"
  streamDriver.mode="1"
  streamDriver.authMode="x509/name"
  permittedPeer=["{client}"]
)
template(name="lines" type="list") {{
  property(name="timestamp" dateFormat="rfc3339") constant(value=" ")
  property(name="hostname") constant(value=" ") property(name="app-name") constant(value=" ")
  property(name="msgid") constant(value=" ") property(name="structured-data")
  constant(value=" ") property(name="msg") constant(value="\\n")
}}
input(type="imtcp" port="{port}" address="127.0.0.1")
action(type="omfile" file="{received}" template="lines")
"""


class Rsyslog(process.Peer):
    """A collector that takes messages from one client; it may be stopped, killed and started."""

    name = "rsyslog"

    def __init__(self, tmp: Path, *, driver: Driver = "gtls") -> None:
        super().__init__(tmp)
        self.port = process.free_port()
        self.driver = driver
        self._authority = authority.make_root("log collector")
        server = authority.make_server(self._authority, ["localhost", "127.0.0.1"])
        self._certificate, self._key, self.ca_bundle = authority.write_server_files(
            tmp, server, self._authority
        )
        self.received = tmp / "received.log"

    def command(self) -> Sequence[str]:
        """Write its configuration and return the command line."""
        config = self.directory / "rsyslog.conf"
        text = CONFIG.format(
            directory=self.directory,
            driver=self.driver,
            root=self.ca_bundle,
            certificate=self._certificate,
            key=self._key,
            client=CLIENT_NAME,
            port=self.port,
            received=self.received,
        )
        config.write_text(text, "ascii")
        pid = self.directory / "rsyslog.pid"
        pid.unlink(missing_ok=True)  # of one that was killed
        return [str(installed("rsyslogd")), "-n", "-f", str(config), "-i", str(pid)]

    def is_ready(self) -> bool:
        """Ask whether it listens."""
        return process.is_listening(self.port)

    def client_files(self, name: str = CLIENT_NAME) -> tuple[Path, Path]:
        """Return a certificate of its authority for *name*, and the key."""
        client = authority.make_client(self._authority, name)
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(client.certificate_pem)
        key.touch(mode=0o600)
        key.write_bytes(client.key_pem())
        return certificate, key

    def sink(self, name: str = CLIENT_NAME) -> dict[str, Any]:
        """Return the sink as a broker's configuration has it, with the certificate of *name*."""
        certificate, key = self.client_files(name)
        return {
            "kind": "syslog",
            "address": f"127.0.0.1:{self.port}",
            "server_name": "localhost",
            "ca_bundle": str(self.ca_bundle),
            "certificate": str(certificate),
            "key": str(key),
        }

    def lines(self) -> list[str]:
        """Return what it has written."""
        if not self.received.exists():
            return []
        return self.received.read_text("utf-8").splitlines()

    def numbers(self) -> list[int]:
        """Return the numbers of the records in it, in their order, without checkpoints."""
        found = []
        for line in self.lines():
            place = line.find('{"digest"')
            if place >= 0:
                found.append(int(json.loads(line[place:])["record"]["seq"]))
        return found
