"""step-ca, Smallstep's private CA, with ACME provisioners and a chain made here."""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.peers import authority, process
from tests.peers.installation import installed

HTTP_01_AND_DNS_01: Final = ("http-01", "dns-01")


@dataclass(frozen=True, slots=True)
class AcmeProvisioner:
    """One ACME directory of step-ca and the lifetimes it grants.

    A ``notAfter`` in the order is honoured between *shortest* and *longest*; without
    one the certificate lives for *default*.  One that is too far off is accepted by
    newOrder and refused by every finalize, with 500 serverInternal: step-ca gives
    the reason to its log alone, and its refusal looks like a passing fault.
    """

    name: str = "acme"
    challenges: Sequence[str] = HTTP_01_AND_DNS_01
    shortest: datetime.timedelta = datetime.timedelta(minutes=5)
    default: datetime.timedelta = datetime.timedelta(hours=24)
    longest: datetime.timedelta = datetime.timedelta(days=90)

    def document(self) -> dict[str, Any]:
        """Return the provisioner as ca.json wants it."""
        return {
            "type": "ACME",
            "name": self.name,
            "challenges": list(self.challenges),
            "claims": {
                "minTLSCertDuration": go_duration(self.shortest),
                "defaultTLSCertDuration": go_duration(self.default),
                "maxTLSCertDuration": go_duration(self.longest),
            },
        }


def go_duration(value: datetime.timedelta) -> str:
    """Return *value* as Go writes durations, in whole seconds."""
    return f"{int(value.total_seconds())}s"


class StepCa(process.Peer):
    """A step-ca that validates for real, by a given resolver and on a given port."""

    name = "step-ca"

    def __init__(
        self,
        tmp: Path,
        *,
        validation_http_port: int,
        dns_server: str,
        validation_tls_port: int | None = None,
        provisioners: Sequence[AcmeProvisioner] = (AcmeProvisioner(),),
    ) -> None:
        super().__init__(tmp)
        self._validation_ports = (validation_http_port, validation_tls_port or process.free_port())
        self._dns_server = dns_server
        self.provisioners = tuple(provisioners)
        self.port = process.free_port()
        self.ca_bundle = tmp / "root.pem"
        self.root = authority.make_root("step-ca test root")
        self.intermediate = authority.make_intermediate(self.root, "step-ca test intermediate")

    @property
    def directory_url(self) -> str:
        """The ACME directory of the first provisioner."""
        return self.directory_url_of(self.provisioners[0].name)

    def directory_url_of(self, provisioner: str) -> str:
        """Return the ACME directory of *provisioner*."""
        return f"https://127.0.0.1:{self.port}/acme/{provisioner}/directory"

    def root_pem(self) -> bytes:
        """Return the root that certificates, step-ca's own HTTPS included, lead to."""
        return self.root.certificate_pem

    def command(self) -> Sequence[str]:
        """Write chain, password and ca.json, and return the command line."""
        password = secrets.token_hex(16)
        self._write("password", password.encode())
        self.ca_bundle.write_bytes(self.root.certificate_pem)
        document = {
            "root": str(self.ca_bundle),
            "crt": self._write("intermediate.pem", self.intermediate.certificate_pem),
            "key": self._write("intermediate.key", self.intermediate.key_pem(password.encode())),
            "address": f"127.0.0.1:{self.port}",
            "dnsNames": ["127.0.0.1", "localhost"],
            "logger": {"format": "json"},
            "crl": {"enabled": True, "generateOnRevoke": True},
            "db": {"type": "badgerv2", "dataSource": str(self.directory / "db")},
            "authority": {"provisioners": [each.document() for each in self.provisioners]},
        }
        config = self._write("ca.json", json.dumps(document).encode())
        return [
            str(installed("step-ca")),
            config,
            f"--password-file={self.directory / 'password'}",
            f"--resolver={self._dns_server}",
            "--insecure",  # the two test-only port switches below ask for it
            f"--acme-http-port={self._validation_ports[0]}",
            f"--acme-tls-port={self._validation_ports[1]}",
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment, with step's own home inside the test's directory."""
        return process.clean_environment(self.directory, {"STEPPATH": str(self.directory)})

    def is_ready(self) -> bool:
        """Ask for the first provisioner's directory."""
        return process.is_answering(self.directory_url, self.ca_bundle)

    def is_revoked(self, serial: int) -> bool:
        """Say whether the revocation list, made anew at each revocation, names *serial*."""
        body = process.get(f"https://127.0.0.1:{self.port}/1.0/crl", self.ca_bundle)
        crl = x509.load_der_x509_crl(body)
        return crl.get_revoked_certificate_by_serial_number(serial) is not None

    def log_entries(self) -> list[dict[str, Any]]:
        """Return one entry per request served, an independent count of what it was asked."""
        lines = (line for line in self.log_text().splitlines() if line.startswith("{"))
        return [json.loads(line) for line in lines]

    def issued(self) -> list[str]:
        """Return the serials, in decimal, of the certificates it handed out by ACME."""
        entries = self.log_entries()
        return sorted({entry["serial"] for entry in entries if "serial" in entry}, key=int)

    def _write(self, name: str, content: bytes) -> str:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)
