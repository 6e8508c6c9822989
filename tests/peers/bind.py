"""BIND 9 as authoritative server, as the resolver of CAs, and as target of updates."""

from __future__ import annotations

import base64
import ipaddress
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update

from tests.peers import process
from tests.peers.installation import installed

ADDRESS: Final = "127.0.0.1"
QUERY_SECONDS: Final = 20.0

TTL_SECONDS: Final = 1
"""TTL of every record: a resolver that caches must not outlive a test's step."""

HARNESS_KEY: Final = "harness."

OPTIONS: Final = """
options {{
    directory "{directory}";
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    managed-keys-directory "{directory}";
    listen-on port {port} {{ {address}; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    allow-recursion {{ {address}; }};
    allow-query {{ {address}; }};
    allow-transfer {{ none; }};
    notify no;
    dnssec-validation no;
    empty-zones-enable no;
    minimal-responses no;
}};
controls {{ }};
logging {{
    channel everything {{ stderr; severity info; }};
    category default {{ everything; }};
    category queries {{ everything; }};
    category update {{ everything; }};
}};
"""

KEY: Final = 'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n'

ZONE: Final = """
zone "{zone}" {{
    type primary;
    file "{file}";
    update-policy {{ {grants} }};
}};
"""

EMPTY_ROOT: Final = """
zone "." {{
    type primary;
    file "{file}";
}};
"""
"""A root of its own, so that no name is ever looked for outside this process.

BIND follows an alias from one of its zones into another only for a client to
whom it offers recursion; with this root there is nowhere to recurse to.
"""

ZONE_FILE: Final = """$TTL {ttl}
@ IN SOA ns1.{zone} hostmaster.{zone} ( 1 3600 600 86400 {ttl} )
@ IN NS ns1.{zone}
ns1.{zone} IN A 127.0.0.1
"""


class Bind(process.Peer):
    """A name server for *zones* alone: no other name exists, and none is asked for outside.

    The TSIG key that is given out may set and delete TXT records inside
    *updatable* zones and nothing else, as an operator would grant it.  A key of
    the harness's own, never given out, writes the records a test sets up.

    A wildcard such as ``*.zone`` doesn't cover a name below which anything stands
    (RFC 4592 §2.2.2): while ``_acme-challenge.a.zone`` exists, ``a.zone`` needs an
    address of its own.
    """

    name = "named"

    def __init__(
        self, tmp: Path, *, zones: Sequence[str], updatable: Sequence[str] | None = None
    ) -> None:
        super().__init__(tmp)
        self.zones = tuple(dns.name.from_text(zone).to_text().lower() for zone in zones)
        allowed = zones if updatable is None else updatable
        self.updatable = tuple(dns.name.from_text(zone).to_text().lower() for zone in allowed)
        self.host = ADDRESS
        self.port = process.free_port()
        self.address = f"{ADDRESS}:{self.port}"
        self.tsig_name = "penstock-test."
        self.tsig_algorithm = "hmac-sha256"
        self.tsig_secret_b64 = base64.b64encode(secrets.token_bytes(32)).decode()
        self._harness_secret_b64 = base64.b64encode(secrets.token_bytes(32)).decode()

    def command(self) -> Sequence[str]:
        """Write named.conf and the zones, and return the command line."""
        parts = [
            OPTIONS.format(directory=self.directory, port=self.port, address=ADDRESS),
            KEY.format(name=self.tsig_name, secret=self.tsig_secret_b64),
            KEY.format(name=HARNESS_KEY, secret=self._harness_secret_b64),
            EMPTY_ROOT.format(file=self._zone_file("root", "")),
            *(self._zone(zone) for zone in self.zones),
        ]
        config = self.directory / "named.conf"
        config.touch(mode=0o600)
        config.write_text("".join(parts), "ascii")
        # Debian confines /usr/sbin/named by its path to system directories; a
        # copy is free to work in the test's own.
        program = shutil.copy(installed("named"), self.directory / "named-copy")
        return [str(program), "-g", "-n", "1", "-c", str(config)]

    def _zone(self, zone: str) -> str:
        file = self._zone_file(zone, zone)
        grants = f'grant "{HARNESS_KEY}" zonesub ANY;'
        if zone in self.updatable:
            grants += f' grant "{self.tsig_name}" zonesub TXT;'
        return ZONE.format(zone=zone, file=file, grants=grants)

    def _zone_file(self, stem: str, zone: str) -> Path:
        file = self.directory / f"{stem.rstrip('.')}.zone"
        file.write_text(ZONE_FILE.format(zone=zone, ttl=TTL_SECONDS), "ascii")
        return file

    def is_ready(self) -> bool:
        """Ask for the SOA of every zone."""
        try:
            return all(self.records(zone, "SOA") for zone in self.zones)
        except (OSError, dns.exception.DNSException):
            return False

    def records(self, name: str, kind: str) -> list[str]:
        """Return the values of one record set at *name* itself, aliases not followed."""
        answer = self.query(name, kind)
        wanted = dns.rdatatype.from_text(kind)
        found: list[str] = []
        for record_set in answer.answer:
            if record_set.name == dns.name.from_text(name) and record_set.rdtype == wanted:
                found.extend(record.to_text() for record in record_set)
        return sorted(found)

    def txt(self, name: str) -> list[str]:
        """Return the TXT values at *name*, without the quotes of presentation form."""
        return [value.strip('"') for value in self.records(name, "TXT")]

    def query(self, name: str, kind: str) -> dns.message.Message:
        """Return the server's whole answer to one question over TCP."""
        question = dns.message.make_query(dns.name.from_text(name), kind)
        return dns.query.tcp(question, ADDRESS, timeout=QUERY_SECONDS, port=self.port)

    def add(self, name: str, kind: str, value: str) -> None:
        """Add one record in whichever zone *name* lies."""
        update = self._update(name)
        update.add(dns.name.from_text(name), TTL_SECONDS, kind, value)
        self._send(update)

    def add_a(self, name: str, address: str = ADDRESS) -> None:
        """Point *name* at an IPv4 or IPv6 address."""
        kind = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
        self.add(name, kind, address)

    def add_cname(self, name: str, target: str) -> None:
        """Make *name* an alias, as an operator delegates ``_acme-challenge``."""
        self.add(name, "CNAME", dns.name.from_text(target).to_text())

    def delete(self, name: str, kind: str | None = None) -> None:
        """Delete what stands at *name*: one record set, or everything."""
        update = self._update(name)
        if kind is None:
            update.delete(dns.name.from_text(name))
        else:
            update.delete(dns.name.from_text(name), kind)
        self._send(update)

    def updates(self) -> list[str]:
        """Return the log lines of updates under the key that was given out, oldest first."""
        signer = f"/key {self.tsig_name.rstrip('.')}"
        lines = self.log_text().splitlines()
        return [line for line in lines if ": updating zone " in line and signer in line]

    def times_asked(self, name: str, kind: str) -> int:
        """Return how often anyone has asked for *name*; a count apart from the asker's."""
        return self.log_text().count(f" query: {name.rstrip('.')} IN {kind.upper()} ")

    def _zone_of(self, name: str) -> str:
        asked = dns.name.from_text(name)
        homes = [zone for zone in self.zones if asked.is_subdomain(dns.name.from_text(zone))]
        if not homes:
            raise process.PeerFailed(f"{name} lies in none of {', '.join(self.zones)}")
        return max(homes, key=len)

    def _update(self, name: str) -> dns.update.UpdateMessage:
        ring = dns.tsigkeyring.from_text({HARNESS_KEY: self._harness_secret_b64})
        return dns.update.UpdateMessage(
            self._zone_of(name),
            keyring=ring,
            keyname=dns.name.from_text(HARNESS_KEY),
            keyalgorithm=dns.tsig.HMAC_SHA256,
        )

    def _send(self, update: dns.update.UpdateMessage) -> None:
        answer = dns.query.tcp(update, ADDRESS, timeout=QUERY_SECONDS, port=self.port)
        if answer.rcode() != dns.rcode.NOERROR:
            raise process.PeerFailed(
                f"named refused an update: {dns.rcode.to_text(answer.rcode())}"
            )
