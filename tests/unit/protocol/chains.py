"""One leaf with chains to two roots."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Family:
    """A leaf, its issuer, and two roots that certified the issuer."""

    def __init__(self) -> None:
        self._keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in (*ROOTS, CA, LEAF)}
        self._leaf = self._certify(LEAF, CA, is_ca=False)
        self.leaf_pem = self._leaf.public_bytes(Encoding.PEM)
        self._roots = {name: self._certify(name, name) for name in ROOTS}
        self._issuers = {name: self._certify(CA, name) for name in ROOTS}

    def pem(self, root: str) -> bytes:
        """Return the chain that leads to *root*, without it."""
        return self.leaf_pem + self._issuers[root].public_bytes(Encoding.PEM)

    def der(self, root: str) -> bytes:
        """Return a root."""
        return self._roots[root].public_bytes(Encoding.DER)

    def fingerprint(self, root: str) -> str:
        """Return a root's fingerprint."""
        return self._roots[root].fingerprint(hashes.SHA256()).hex()

    def _certify(self, subject: str, issuer: str, *, is_ca: bool = True) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(self._keys[subject].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(START + datetime.timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .sign(self._keys[issuer], hashes.SHA256())
        )


ROOTS = ("Old Root", "New Root")
CA = "Issuing CA"
LEAF = "leaf.example.com"
