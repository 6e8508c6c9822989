"""PowerDNS as a DNS provider: authoritative server and HTTP API over an SQLite file."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.query
import dns.rdatatype

from tests.peers import process
from tests.peers.installation import installed

SCHEMA: Final = Path("/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql")
ADDRESS: Final = "127.0.0.1"
QUERY_SECONDS: Final = 20.0

CONFIG: Final = """\
launch=gsqlite3
gsqlite3-database={database}
socket-dir={directory}
local-address={address}
local-port={port}
api=yes
api-key={key}
webserver=yes
webserver-address={address}
webserver-port={api_port}
webserver-allow-from={address}
default-ttl=1
cache-ttl=0
negquery-cache-ttl=0
query-cache-ttl=0
zone-cache-refresh-interval=0
security-poll-suffix=
log-dns-queries=yes
loglevel=6
"""


class PowerDns(process.Peer):
    """An authoritative server whose zones are changed through its HTTP API alone."""

    name = "pdns"

    def __init__(self, tmp: Path, *, zones: Sequence[str]) -> None:
        super().__init__(tmp)
        self.zones = tuple(zones)
        self.port = process.free_port()
        self.api_port = process.free_port()
        self.host = ADDRESS
        self.address = f"{ADDRESS}:{self.port}"
        self.api_url = f"http://{ADDRESS}:{self.api_port}"
        self.api_key = secrets.token_hex(16)

    def command(self) -> Sequence[str]:
        """Make the database and the configuration, and return the command line."""
        database = self.directory / "pdns.sqlite3"
        if not database.exists():
            with contextlib.closing(sqlite3.connect(database)) as made:
                made.executescript(SCHEMA.read_text("utf-8"))
        text = CONFIG.format(
            database=database,
            directory=self.directory,
            address=ADDRESS,
            port=self.port,
            key=self.api_key,
            api_port=self.api_port,
        )
        config = self.directory / "pdns.conf"
        config.touch(mode=0o600)
        config.write_text(text, "ascii")
        return [
            str(installed("pdns_server")),
            f"--config-dir={self.directory}",
            "--daemon=no",
            "--guardian=no",
        ]

    def is_ready(self) -> bool:
        """See that both the name server and the API accept connections."""
        return process.is_listening(self.port) and process.is_listening(self.api_port)

    def start(self) -> None:
        """Start, and make the zones that are not there yet."""
        super().start()
        known = {zone["name"] for zone in self._call("GET", "/zones")}
        for zone in self.zones:
            if f"{zone}." not in known:
                document = {"name": f"{zone}.", "kind": "Native", "nameservers": [f"ns1.{zone}."]}
                self._call("POST", "/zones", document)
                self.add_a(f"ns1.{zone}")

    def add_a(self, name: str, address: str = ADDRESS) -> None:
        """Point *name* at an address."""
        self._replace(name, "A", [address])

    def add_cname(self, name: str, target: str) -> None:
        """Make *name* an alias."""
        self._replace(name, "CNAME", [f"{target}."])

    def set_txt(self, name: str, values: Sequence[str]) -> None:
        """Make the TXT values at *name* these and no others."""
        self._replace(name, "TXT", [f'"{value}"' for value in values])

    def set_caa(self, name: str, records: Sequence[tuple[int, str, str]]) -> None:
        """Publish CAA records (flags, tag, value) at *name*."""
        values = [f'{flags} {tag} "{value}"' for flags, tag, value in records]
        self._replace(name, "CAA", values)

    def txt(self, name: str) -> list[str]:
        """Return the TXT values that the name server itself shows, sorted."""
        query = dns.message.make_query(name, dns.rdatatype.TXT)
        answer = dns.query.tcp(query, ADDRESS, timeout=QUERY_SECONDS, port=self.port)
        return sorted(
            b"".join(record.strings).decode()
            for rrset in answer.answer
            for record in rrset
            if record.rdtype == dns.rdatatype.TXT
        )

    def _replace(self, name: str, kind: str, values: Sequence[str]) -> None:
        zone = max((zone for zone in self.zones if name.endswith(zone)), key=len)
        rrset = {
            "name": f"{name}.",
            "type": kind,
            "ttl": 1,
            "changetype": "REPLACE",
            "records": [{"content": value, "disabled": False} for value in values],
        }
        self._call("PATCH", f"/zones/{zone}.", {"rrsets": [rrset]})

    def _call(self, method: str, path: str, document: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.api_url}/api/v1/servers/localhost{path}",
            data=None if document is None else json.dumps(document).encode(),
            headers={"X-API-Key": self.api_key, "Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=QUERY_SECONDS) as answer:
            return json.loads(answer.read() or b"null")
