"""The cluster's own certificates and kubeconfig files, made anew for each cluster."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.kubernetes.keeper import NODE_ADDRESS
from tests.peers.authority import BACKDATE, LIFETIME, Signer, make_root, real_now

API_SERVER: Final = "https://127.0.0.1:6443"
API_SERVICE_ADDRESS: Final = "10.96.0.1"
NODE_NAME: Final = "node1"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is for, in Kubernetes' reading: CN is the user, O the group."""

    user: str
    group: str = ""
    hosts: Sequence[str] = ()


API_HOSTS: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    NODE_ADDRESS,
    API_SERVICE_ADDRESS,
)

SUBJECTS: Final = {
    "apiserver": Subject("kube-apiserver", hosts=API_HOSTS),
    "apiserver-kubelet": Subject("kube-apiserver-kubelet-client", "system:masters"),
    "admin": Subject("admin", "system:masters"),
    "controller-manager": Subject("system:kube-controller-manager"),
    "scheduler": Subject("system:kube-scheduler"),
    "kube-proxy": Subject("system:kube-proxy"),
    "kubelet": Subject(f"system:node:{NODE_NAME}", "system:nodes", hosts=(NODE_NAME, NODE_ADDRESS)),
}
"""File name → whose certificate it is; all from the cluster's CA."""

KUBECONFIGS: Final = ("admin", "controller-manager", "scheduler", "kubelet", "kube-proxy")


def write_credentials(folder: Path) -> None:
    """Write all keys, certificates and kubeconfig files into *folder*."""
    folder.mkdir(parents=True)
    authority = make_root("penstock-test-cluster")
    _write(folder, "ca", authority)
    for name, subject in SUBJECTS.items():
        _write(folder, name, _issue(authority, subject))
    front = make_root("penstock-test-front-proxy")
    _write(folder, "front-proxy-ca", front)
    _write(folder, "front-proxy-client", _issue(front, Subject("front-proxy-client")))
    tokens = ec.generate_private_key(ec.SECP256R1())
    (folder / "tokens.key").write_bytes(_key_pem(tokens))
    (folder / "tokens.pub").write_bytes(
        tokens.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    for name in KUBECONFIGS:
        (folder / f"{name}.conf").write_text(_kubeconfig(folder, name), "ascii")


def _issue(authority: Signer, subject: Subject) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    named = [x509.NameAttribute(NameOID.COMMON_NAME, subject.user)]
    if subject.group:
        named.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.group))
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    now = real_now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(named))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    )
    if subject.hosts:
        names = [_general_name(host) for host in subject.hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Signer(builder.sign(authority.key, hashes.SHA256()), key)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, signer: Signer) -> None:
    (folder / f"{name}.crt").write_bytes(signer.certificate_pem)
    key = folder / f"{name}.key"
    key.write_bytes(_key_pem(signer.key))
    key.chmod(0o600)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Kubernetes reads service account keys in this older form too, and only this for some files.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _kubeconfig(folder: Path, name: str) -> str:
    cluster = {"server": API_SERVER, "certificate-authority": f"{folder}/ca.crt"}
    user = {"client-certificate": f"{folder}/{name}.crt", "client-key": f"{folder}/{name}.key"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
    )
