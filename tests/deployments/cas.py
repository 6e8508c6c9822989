"""The kinds of CA that Penstock is tried in front of, each with what it knows by itself.

What a CA issued and revoked is asked of the CA, never of Penstock.
"""

from __future__ import annotations

import abc
import datetime
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from cryptography import x509

from tests.deployments.penstock import AcmeCa, Penstock
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.client import DnsUpdates
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.stepca import AcmeProvisioner, StepCa
from tests.peers.vault import Vault, VaultPki

WEB_ZONE = "web.example.test"
"""Names below it are validated by http-01, at Penstock and at the CA."""

DNS_ZONE = "dns.example.test"
"""Names below it are validated by dns-01, at Penstock and at the CA."""

OWN_ZONE = "own.example.test"
"""Names below it have an address for each client, and are validated by dns-01 at the CA."""

SHORT = datetime.timedelta(days=4)
"""Lifetime of certificates by the profile ``short``, where that is a role of the CA."""


def updates_of(server: Bind) -> DnsUpdates:
    """Return what is needed for setting records at *server*."""
    return DnsUpdates(server.host, server.port, server.tsig_name, server.tsig_secret_b64)


class Deployment(abc.ABC):
    """A Penstock in front of one CA, and the port at which clients answer http-01."""

    penstock: Penstock
    client_port: int
    tls_port: int
    """The port at which clients answer tls-alpn-01, where that is looked for."""

    upstream: str
    usages: ClassVar[tuple[str, ...]] = ("server-auth",)

    def profiles(self, short: str | None = None) -> dict[str, object]:
        """Return the default profile, and ``short`` with *short* as its upstream."""
        common = {"usages": list(self.usages), "description": "TLS servers of the tests"}
        upstreams = {"server": self.upstream, "short": short or self.upstream}
        return {
            name: {**common, "cap": cap, "upstreams": [{"upstream": upstreams[name]}]}
            for name, cap in (("server", "47d"), ("short", "5d"))
        }

    def alternate_root_pem(self) -> bytes | None:
        """Return the root of a second chain, where the CA offers one."""
        return None

    @abc.abstractmethod
    def root_pem(self) -> bytes:
        """Return the root that certificates lead to."""

    @abc.abstractmethod
    def issued_serials(self) -> list[int]:
        """Return the serials that the CA says it issued."""

    @abc.abstractmethod
    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Say whether the CA has revoked *leaf*."""


class BehindPebble(Deployment):
    """Pebble, strict, refusing a fair share of good nonces."""

    upstream = "pebble"

    def __init__(
        self, tmp: Path, stack: ExitStack, named: Bind, options: Mapping[str, Any] | None = None
    ) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=named.address,
                options=PebbleOptions(nonce_reject_percent=15, alternate_roots=1),
            )
        )
        anchors = tmp / "pebble-root.pem"
        anchors.write_bytes(self.pebble.root_pem() + self.pebble.root_pem(1))
        ca = AcmeCa(
            name=self.upstream,
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"solvers": solvers(tmp, named)},
        )
        self.penstock = stack.enter_context(
            broker(
                tmp, named, self.client_port, plain, [ca], profiles=self.profiles(), more=options
            )
        )

    def root_pem(self) -> bytes:
        """Return the root that certificates lead to."""
        return self.pebble.root_pem()

    def alternate_root_pem(self) -> bytes | None:
        """Return the second root, to which every chain can be had as well."""
        return self.pebble.root_pem(1)

    def issued_serials(self) -> list[int]:
        """Return the serials of Pebble's own log."""
        return [int(one.serial_hex, 16) for one in self.pebble.issued()]

    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Ask Pebble's management page."""
        return self.pebble.status(f"{leaf.serial_number:x}").is_revoked


class BehindStepCa(Deployment):
    """step-ca with an ACME provisioner that grants up to 90 days."""

    upstream = "step"
    usages = ("server-auth", "client-auth")

    def __init__(
        self, tmp: Path, stack: ExitStack, named: Bind, options: Mapping[str, Any] | None = None
    ) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.step_ca = stack.enter_context(
            StepCa(
                tmp / "step-ca",
                validation_http_port=plain,
                dns_server=named.address,
                provisioners=[AcmeProvisioner()],
            )
        )
        anchors = tmp / "step-root.pem"
        anchors.write_bytes(self.step_ca.root_pem())
        ca = AcmeCa(
            name=self.upstream,
            directory_url=self.step_ca.directory_url,
            ca_bundle=self.step_ca.ca_bundle,
            description="step-ca",
            anchors=anchors,
            options={"solvers": solvers(tmp, named)},
        )
        self.penstock = stack.enter_context(
            broker(
                tmp, named, self.client_port, plain, [ca], profiles=self.profiles(), more=options
            )
        )

    def root_pem(self) -> bytes:
        """Return the root that certificates lead to."""
        return self.step_ca.root_pem()

    def issued_serials(self) -> list[int]:
        """Return the serials of step-ca's own log."""
        return [int(serial) for serial in self.step_ca.issued()]

    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Ask for step-ca's revocation list."""
        return self.step_ca.is_revoked(leaf.serial_number)


class BehindBuiltIn(Deployment):
    """The CA that Penstock itself is; it publishes its revocation list over plain HTTP."""

    upstream = "local"

    def __init__(
        self, tmp: Path, stack: ExitStack, named: Bind, options: Mapping[str, Any] | None = None
    ) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.penstock = stack.enter_context(
            broker(tmp, named, self.client_port, plain, [], profiles=self.profiles(), more=options)
        )

    def root_pem(self) -> bytes:
        """Return the built-in CA's root."""
        return self.penstock.ca_bundle.read_bytes()

    def issued_serials(self) -> list[int]:
        """Return the serials of the CA's own ledger, read from its table."""
        return self.penstock.ca_serials()

    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Fetch the revocation list that the certificate itself points to."""
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        names = points[0].full_name or []
        async with aiohttp.ClientSession() as session, session.get(names[0].value) as answer:
            assert answer.status == 200
            crl = x509.load_der_x509_crl(await answer.read())
        return crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


class BehindVault(Deployment):
    """The PKI engine of a Vault, whose roles are what other CAs call profiles."""

    upstream = "vault"

    def __init__(
        self, tmp: Path, stack: ExitStack, named: Bind, options: Mapping[str, Any] | None = None
    ) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        vault = stack.enter_context(Vault(tmp / "vault"))
        self.pki = VaultPki(vault, dns_server=named.address)
        lifetimes = {self.upstream: datetime.timedelta(days=40), f"{self.upstream}-short": SHORT}
        self.pki.set_up(lifetimes)
        anchors = tmp / "vault-root.pem"
        anchors.write_bytes(self.pki.root_pem())
        cas = [
            AcmeCa(
                name=name,
                directory_url=self.pki.directory_url_of(name),
                ca_bundle=vault.ca_bundle,
                description="vault-pki",
                anchors=anchors,
                facts={"default_lifetime": f"{lifetime.days}d"},
                options={"solvers": solvers(tmp, named)[:1]},
            )
            for name, lifetime in lifetimes.items()
        ]
        profiles = self.profiles(f"{self.upstream}-short")
        self.penstock = stack.enter_context(
            broker(tmp, named, self.client_port, plain, cas, profiles=profiles, more=options)
        )

    def root_pem(self) -> bytes:
        """Return the root that certificates lead to."""
        return self.pki.root_pem()

    def issued_serials(self) -> list[int]:
        """Return the serials that the engine keeps."""
        return self.pki.issued()

    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Ask for a revocation list."""
        return self.pki.is_revoked(leaf.serial_number)


def solvers(tmp: Path, named: Bind) -> list[dict[str, object]]:
    """Return the upstream's solvers: dns-01 for names below one zone, http-01 for the others."""
    tmp.mkdir(parents=True, exist_ok=True)
    dns = AcmeCa(name="solver", directory_url="", ca_bundle=tmp, dns_01=updates_of(named))
    document = dns.document(tmp)["solvers"][0]
    return [
        {**document, "names": [f"**.{DNS_ZONE}", f"**.{OWN_ZONE}"]},
        {"challenge": "http-01", "names": [f"**.{WEB_ZONE}", "127.0.0.1", "::1"]},
    ]


def broker(
    tmp: Path,
    named: Bind,
    client_port: int,
    plain_port: int,
    upstreams: list[AcmeCa],
    *,
    profiles: dict[str, object] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Penstock:
    """Return a Penstock that resolves at *named* and answers http-01 at *plain_port*.

    *more* goes to it as it is.
    """
    return Penstock(
        tmp / "penstock",
        validation_http_port=client_port,
        resolver=named.address,
        plain_port=plain_port,
        upstreams=upstreams,
        profiles=profiles,
        **(more or {}),
    )
