"""A CA for tests of the agent: signs what a node asks for, honestly or otherwise, and a node's
folders with the configuration that goes with them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agents import adopt, keys, leaving, sealing, verify
from agents import install as install_module
from agents.child import ChildFault
from agents.clock import SystemClock
from agents.config import CertificateSection, ExpectsSection, FilesSection, KeySection, Layout
from agents.crafting import do_work
from agents.install import Installation, install
from agents.keys import make_csr
from agents.verify import Expectation, Verified, read_anchors, verify_certificate

NOW = SystemClock().now().replace(microsecond=0)
"""When the tests take place; certificates are looked at by libraries that know the real time."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem_of(*certificates: x509.Certificate) -> str:
    """Return certificates in PEM."""
    encoding = serialization.Encoding.PEM
    return "".join(one.public_bytes(encoding).decode() for one in certificates)


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@dataclass
class Issue:
    """What a certificate is to be like."""

    names: Sequence[str] = ("www.example",)
    common_name: str | None = None
    begins: timedelta = timedelta(hours=-1)
    lasts: timedelta = timedelta(days=30)
    is_ca: bool = False
    usages: Sequence[str] | None = ("digital_signature",)
    server_auth: bool = True
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    """More of them, each with whether it is critical."""


@dataclass
class NodeAuthority:
    """A root and, below it, an intermediate that signs."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        root_key = ec.generate_private_key(ec.SECP256R1())
        authority = Issue(names=(), is_ca=True, usages=("key_cert_sign", "crl_sign"))
        authority.lasts = timedelta(days=3650)
        self.root = self.sign(root_key, authority, issuer=None, key=root_key, subject="root")
        self.intermediate = self.sign(
            self.key, authority, issuer=self.root, key=root_key, subject="intermediate"
        )

    @property
    def anchors_pem(self) -> str:
        """What its certificates lead to."""
        return pem_of(self.root)

    def sign(
        self,
        public: Any,
        issue: Issue,
        *,
        issuer: x509.Certificate | None,
        key: PrivateKey,
        subject: str | None = None,
    ) -> x509.Certificate:
        """Return a certificate of any kind."""
        subject = subject or issue.common_name
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer.subject if issuer is not None else name)
            .public_key(public.public_key() if hasattr(public, "public_key") else public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + issue.begins)
            .not_valid_after(NOW + issue.begins + issue.lasts)
            .add_extension(x509.BasicConstraints(issue.is_ca, None), critical=True)
        )
        if issue.names:
            alternatives = x509.SubjectAlternativeName([_general(one) for one in issue.names])
            builder = builder.add_extension(alternatives, critical=subject is None)
        if issue.usages is not None:
            builder = builder.add_extension(_usage(issue.usages), critical=True)
        if issue.server_auth and not issue.is_ca:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            builder = builder.add_extension(usage, critical=False)
        for extension, is_critical in issue.extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(key, hashes.SHA256())

    def certify(self, csr_der: bytes, issue: Issue | None = None) -> str:
        """Return a chain in PEM for a CSR, the root left out."""
        csr = x509.load_der_x509_csr(csr_der)
        assert csr.is_signature_valid
        return self.certify_key(csr.public_key(), issue)

    def certify_key(self, public: Any, issue: Issue | None = None) -> str:
        """Return a chain in PEM for a key."""
        leaf = self.sign(public, issue or Issue(), issuer=self.intermediate, key=self.key)
        return pem_of(leaf, self.intermediate)


def _general(name: str) -> x509.GeneralName:
    import ipaddress

    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _usage(wanted: Sequence[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: one in wanted for one in _USAGES})


@dataclass
class Node:
    """A node's folders below a temporary one, and a CA that its anchors name."""

    home: Path
    authority: NodeAuthority = field(default_factory=NodeAuthority)

    def __post_init__(self) -> None:
        self.home = self.home.resolve()
        self.tls = self.home / "tls"
        self.state = self.home / "state"
        self.anchors = self.home / "anchors.pem"
        for folder in (self.tls, self.state):
            folder.mkdir(exist_ok=True)
        self.anchors.write_text(self.authority.anchors_pem, encoding="ascii")
        (self.home / "password").write_text("open sesame\n", encoding="ascii")

    @property
    def allowed(self) -> tuple[str, ...]:
        """Where files may be written."""
        return (str(self.tls),)

    def section(
        self,
        layout: Layout = Layout.PEM,
        *,
        name: str = "www",
        names: Sequence[str] = ("www.example",),
        key: KeySection | None = None,
        **files: Any,
    ) -> CertificateSection:
        """Return the configuration of one certificate."""
        if layout is Layout.PKCS12:
            files.setdefault("password", f"file:{self.home / 'password'}")
        files.setdefault("directory", str(self.tls / name))
        return CertificateSection(
            name=name,
            names=tuple(names),
            key=key or KeySection(),
            files=FilesSection(layout=layout, file=name, **files),
            expects=ExpectsSection(anchors=str(self.anchors)),
        )

    def obtain(
        self, section: CertificateSection, issue: Issue | None = None
    ) -> tuple[Verified, str]:
        """Make a new key, have it certified, verify; return that and the key's reference."""
        made = make_csr(section, names=section.names, is_new_key=True, state_dir=str(self.state))
        chain = self.authority.certify(made.csr_der, issue or Issue(section.names))
        expectation = Expectation(
            names=section.names,
            spki_sha256=made.spki_sha256,
            now=NOW,
            anchors_pem=read_anchors(section.expects.anchors),
        )
        return verify_certificate(chain, expectation), made.key_reference

    def install(
        self, section: CertificateSection, verified: Verified, key: str, **more: Any
    ) -> Installation:
        """Put it in its place."""
        return install(
            section, verified, key, allowed=self.allowed, state_dir=str(self.state), **more
        )


def unpadded(octets: bytes) -> str:
    """Return octets as answers of the child have them."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def craft_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the child's work done in the process of the test, for every module that asks for it."""

    def run_here(work: Mapping[str, Any], *, timeout: float = 0) -> dict[str, Any]:
        answer = do_work(work)
        if "fault" in answer:
            raise ChildFault(str(answer["fault"]))
        return answer

    for module in (adopt, install_module, keys, leaving, sealing, verify):
        monkeypatch.setattr(module, "run_child", run_here)
