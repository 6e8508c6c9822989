"""Pebble, Let's Encrypt's test CA, and its challenge test server, on loopback only.

Two facts about Pebble that look like our faults when they bite: it deadlocks for
good when an order is polled within milliseconds of its finalize, so a client must
heed Retry-After; and its finalize answer carries no Location.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.peers import authority, process
from tests.peers.installation import installed

DEFAULT_PROFILES: Final = {
    "default": datetime.timedelta(days=90),
    "shortlived": datetime.timedelta(days=6),
}
"""Profiles as Pebble ships them, so that a test names only what it wants otherwise."""

ISSUED: Final = re.compile(r"Issued certificate serial (?P<serial>\S+) for order (?P<order>\S+)")


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that Pebble says it made, whoever was told about it."""

    serial_hex: str
    """Lower case and without leading zeros, which Pebble prints and Python doesn't."""

    order_id: str


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """What Pebble thinks of one of its certificates."""

    status: str
    pem: bytes
    reason: int | None

    @property
    def is_revoked(self) -> bool:
        """Whether Pebble has revoked it."""
        return self.status == "Revoked"


@dataclass(frozen=True, slots=True)
class PebbleOptions:
    """How Pebble shall behave; each default is the strict or the plain case."""

    nonce_reject_percent: int = 15
    """Share of good nonces refused with badNonce, in percent; Pebble's own default is 5."""

    authz_reuse: int = 0
    """How often a valid authorization is reused for a new order, in percent."""

    strict: bool = True
    profiles: Mapping[str, datetime.timedelta] | None = None
    alternate_roots: int = 0
    chain_length: int = 1
    external_accounts: Mapping[str, str] | None = None
    """kid → base64url MAC key; where given, newAccount without a binding is refused."""

    blocked_domains: Sequence[str] = ()
    va_no_sleep: bool = True
    always_valid: bool = False
    """Whether challenges are called valid without a look at them."""

    retry_after_authz_seconds: int = 1
    retry_after_order_seconds: int = 1
    """Shortest Retry-After Pebble can be told; its own is 3 and 5 s."""


class Pebble(process.Peer):
    """A strict Pebble that rejects a share of good nonces."""

    name = "pebble"

    def __init__(
        self,
        tmp: Path,
        *,
        validation_http_port: int,
        dns_server: str,
        validation_tls_port: int | None = None,
        options: PebbleOptions | None = None,
    ) -> None:
        super().__init__(tmp)
        self.options = options or PebbleOptions()
        self._validation_ports = (validation_http_port, validation_tls_port or process.free_port())
        self._dns_server = dns_server
        self.port = process.free_port()
        self._management_port = process.free_port()
        self.directory_url = f"https://127.0.0.1:{self.port}/dir"
        self.management_url = f"https://127.0.0.1:{self._management_port}"
        root = authority.make_root("pebble HTTPS")
        server = authority.make_server(root, ["localhost", "127.0.0.1"])
        self._certificate, self._key, self.ca_bundle = authority.write_server_files(
            tmp, server, root
        )

    def command(self) -> Sequence[str]:
        """Write pebble.json and return the command line."""
        options = self.options
        accounts = options.external_accounts or {}
        profiles = options.profiles or DEFAULT_PROFILES
        document = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management_port}",
            "certificate": str(self._certificate),
            "privateKey": str(self._key),
            "httpPort": self._validation_ports[0],
            "tlsPort": self._validation_ports[1],
            "externalAccountBindingRequired": bool(accounts),
            "externalAccountMACKeys": dict(accounts),
            "domainBlocklist": list(options.blocked_domains),
            "keyAlgorithm": "ecdsa",
            "retryAfter": {
                "authz": options.retry_after_authz_seconds,
                "order": options.retry_after_order_seconds,
            },
            "profiles": {
                name: {"description": name, "validityPeriod": int(validity.total_seconds())}
                for name, validity in profiles.items()
            },
        }
        config = self.directory / "pebble.json"
        config.write_text(json.dumps({"pebble": document}), "utf-8")
        strict = ["-strict"] if options.strict else []
        program = str(installed("pebble"))
        return [program, "-config", str(config), "-dnsserver", self._dns_server, *strict]

    def environment(self) -> dict[str, str]:
        """Return the environment, which is where Pebble keeps most of its switches."""
        options = self.options
        switches = {
            "PEBBLE_WFE_NONCEREJECT": str(options.nonce_reject_percent),
            "PEBBLE_AUTHZREUSE": str(options.authz_reuse),
            "PEBBLE_ALTERNATE_ROOTS": str(options.alternate_roots),
            "PEBBLE_CHAIN_LENGTH": str(options.chain_length),
        }
        if options.va_no_sleep:
            switches["PEBBLE_VA_NOSLEEP"] = "1"
        if options.always_valid:
            switches["PEBBLE_VA_ALWAYS_VALID"] = "1"
        return process.clean_environment(self.directory, switches)

    def is_ready(self) -> bool:
        """Ask for the directory and for the root, which two listeners serve."""
        return process.is_answering(self.directory_url, self.ca_bundle) and process.is_answering(
            f"{self.management_url}/roots/0", self.ca_bundle
        )

    def root_pem(self, index: int = 0) -> bytes:
        """Return the root that issued certificates lead to; new at every start."""
        return process.get(f"{self.management_url}/roots/{index}", self.ca_bundle)

    def issued(self) -> list[Issued]:
        """Return every certificate Pebble really made, by its own log and in its order."""
        return [
            Issued(f"{int(match['serial'], 16):x}", match["order"])
            for match in ISSUED.finditer(self.log_text())
        ]

    def status(self, serial_hex: str) -> CertificateStatus:
        """Return what Pebble thinks of the certificate with this serial."""
        body = process.get(
            f"{self.management_url}/cert-status-by-serial/{serial_hex}", self.ca_bundle
        )
        document = json.loads(body)
        return CertificateStatus(
            document["Status"], document["Certificate"].encode(), document.get("Reason")
        )

    def set_renewal_info(self, certificate_pem: bytes, ari_response: str) -> None:
        """Make renewalInfo answer *ari_response*, a JSON text, for one certificate."""
        document = {"Certificate": certificate_pem.decode(), "ARIResponse": ari_response}
        process.post_json(f"{self.management_url}/set-renewal-info/", document, self.ca_bundle)


class ChallTestSrv(process.Peer):
    """A DNS server that can be told what to answer and remembers what it was asked.

    Its http-01 listener stays off: whoever answers challenges is under test.
    """

    name = "challtestsrv"

    def __init__(
        self,
        tmp: Path,
        *,
        default_ipv4: str = "127.0.0.1",
        default_ipv6: str = "",
        http_redirect_port: int | None = None,
    ) -> None:
        super().__init__(tmp)
        self._defaults = (default_ipv4, default_ipv6)
        self._http_port = http_redirect_port
        self.port = process.free_port()
        self.dns_address = f"127.0.0.1:{self.port}"
        self._management_port = process.free_port()
        self.management_url = f"http://127.0.0.1:{self._management_port}"

    def command(self) -> Sequence[str]:
        """Return the command line; this peer has no configuration file."""
        http = f"127.0.0.1:{self._http_port}" if self._http_port else ""
        return [
            str(installed("pebble-challtestsrv")),
            f"-dnsserver={self.dns_address}",
            f"-management=127.0.0.1:{self._management_port}",
            f"-http01={http}",
            "-https01=",
            "-tlsalpn01=",
            "-doh=",
            f"-defaultIPv4={self._defaults[0]}",
            f"-defaultIPv6={self._defaults[1]}",
        ]

    def is_ready(self) -> bool:
        """See that both the DNS listener and the management page accept connections."""
        return process.is_listening(self.port) and process.is_listening(self._management_port)

    def set_default_ipv4(self, address: str) -> None:
        """Answer *address* to every A query that has no record of its own; "" for none."""
        self._tell("set-default-ipv4", {"ip": address})

    def set_default_ipv6(self, address: str) -> None:
        """Answer *address* to every AAAA query that has no record of its own; "" for none."""
        self._tell("set-default-ipv6", {"ip": address})

    def add_a(self, host: str, addresses: Sequence[str]) -> None:
        """Answer *addresses* to A queries for *host*."""
        self._tell("add-a", {"host": host, "addresses": list(addresses)})

    def clear_a(self, host: str) -> None:
        """Forget the A records of *host*."""
        self._tell("clear-a", {"host": host})

    def add_aaaa(self, host: str, addresses: Sequence[str]) -> None:
        """Answer *addresses* to AAAA queries for *host*."""
        self._tell("add-aaaa", {"host": host, "addresses": list(addresses)})

    def set_txt(self, host: str, value: str) -> None:
        """Add one TXT value at *host*."""
        self._tell("set-txt", {"host": absolute(host), "value": value})

    def clear_txt(self, host: str) -> None:
        """Forget every TXT value at *host*."""
        self._tell("clear-txt", {"host": absolute(host)})

    def set_cname(self, host: str, target: str) -> None:
        """Make *host* an alias of *target*."""
        self._tell("set-cname", {"host": host, "target": target})

    def clear_cname(self, host: str) -> None:
        """Forget the alias at *host*."""
        self._tell("clear-cname", {"host": host})

    def add_caa(self, host: str, policies: Sequence[tuple[str, str]]) -> None:
        """Publish CAA (tag, value) pairs at *host*."""
        entries = [{"tag": tag, "value": value} for tag, value in policies]
        self._tell("add-caa", {"host": host, "policies": entries})

    def set_servfail(self, host: str) -> None:
        """Answer every query for *host* with SERVFAIL."""
        self._tell("set-servfail", {"host": host})

    def clear_servfail(self, host: str) -> None:
        """Answer queries for *host* again."""
        self._tell("clear-servfail", {"host": host})

    def add_redirect(self, path: str, target_url: str) -> None:
        """Send HTTP requests for *path* to *target_url*; needs ``http_redirect_port``."""
        self._tell("add-redirect", {"path": path, "targetURL": target_url})

    def dns_history(self, host: str) -> list[dict[str, Any]]:
        """Return the DNS queries that were asked for *host*, oldest first."""
        return self._history("dns-request-history", host)

    def http_history(self, host: str) -> list[dict[str, Any]]:
        """Return the HTTP requests that came for *host*, oldest first."""
        return self._history("http-request-history", host)

    def clear_history(self, host: str, kind: str = "dns") -> None:
        """Forget what was asked for *host*; *kind* is dns, http or tlsalpn."""
        self._tell("clear-request-history", {"host": host, "type": kind})

    def _tell(self, page: str, document: Mapping[str, Any]) -> bytes:
        return process.post_json(f"{self.management_url}/{page}", document)

    def _history(self, page: str, host: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self._tell(page, {"host": host}))
        return events


def absolute(host: str) -> str:
    """Return *host* with the trailing dot that the TXT pages, alone, insist on."""
    return host.rstrip(".") + "."
