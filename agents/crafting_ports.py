"""What the child's two ways of doing its work have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

__all__ = ["TOKEN_SCHEME", "CraftFault", "Crafter", "KeyCrafter"]

TOKEN_SCHEME: Final = "pkcs11:"
"""What the name of a key on a token begins with, where others are paths (RFC 7512)."""


class CraftFault(Exception):
    """A piece of work cannot be done; says why, for people, and nothing secret."""


class KeyCrafter(Protocol):
    """What is done with private keys in PEM.  Each raises CraftFault."""

    name: str

    def generate(self, kind: str) -> bytes: ...
    def spki(self, key_pem: bytes) -> bytes: ...
    def sign(self, key_pem: bytes, message: bytes) -> bytes: ...
    def request(self, key_pem: bytes, names: Sequence[str]) -> bytes: ...


class Crafter(KeyCrafter, Protocol):
    """Also what is done with certificates, in DER.  Each raises CraftFault."""

    def facts(self, certificate_der: bytes) -> dict[str, Any]: ...
    def is_issued_by(self, certificate_der: bytes, issuer_der: bytes) -> bool: ...
    def why_unverified(
        self, chain: Sequence[bytes], anchors: Sequence[bytes], at: int
    ) -> str | None: ...
    def pkcs12(
        self, key_pem: bytes, chain: Sequence[bytes], password: bytes, name: str
    ) -> bytes: ...
    def open_pkcs12(self, octets: bytes, password: bytes) -> tuple[bytes, list[bytes]]: ...
    def seal(self, octets: bytes, recipient_der: bytes) -> bytes: ...
