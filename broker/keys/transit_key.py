"""What Vault's transit engine says of a key, and what about it must not be so.

Pure: documents in, values and findings out.  Who asks Vault is ``vault``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from broker.issuance.errors import Broken, KeyArchived
from broker.issuance.key_ports import KeyFault, KeyFaultKind
from broker.keys.vault_ids import VaultKeyId

__all__ = [
    "TYPES",
    "PinnedKey",
    "TransitKey",
    "check_key",
    "check_origin",
    "check_version",
    "parse_signature",
    "parse_transit_key",
    "pin",
]

TYPES: Final[Mapping[str, str]] = {
    "ec-p256": "ecdsa-p256",
    "ec-p384": "ecdsa-p384",
    "rsa-2048": "rsa-2048",
    "rsa-3072": "rsa-3072",
    "rsa-4096": "rsa-4096",
}
"""Vault's word for each kind of key that signs for us: those that key files have as well."""

_HASHES: Final[Mapping[str, tuple[str, hashes.HashAlgorithm]]] = {
    "ecdsa-p256": ("sha2-256", hashes.SHA256()),
    "ecdsa-p384": ("sha2-384", hashes.SHA384()),
    "rsa-2048": ("sha2-256", hashes.SHA256()),
    "rsa-3072": ("sha2-256", hashes.SHA256()),
    "rsa-4096": ("sha2-256", hashes.SHA256()),
}
"""The hash that goes with each type (RFC 7518 §3.3, §3.4), in Vault's words and as itself: Vault's
own default is SHA-256 for every curve."""

_SIGNATURE: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9_-]+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitKey:
    """A transit key with all its versions, as Vault tells it."""

    type: str
    latest_version: int
    min_encryption_version: int
    """Oldest version that signs; 0 where every version may."""
    min_decryption_version: int
    """Oldest version that is not archived."""
    min_available_version: int
    """Oldest version that there is; 0 where none was trimmed away."""
    public_keys: Mapping[int, str]
    """PEM by version, of those that are not archived."""
    auto_rotate_period: object
    is_exportable: bool
    is_plaintext_backup_allowed: bool
    is_deletion_allowed: bool
    is_imported: bool
    is_derived: bool

    @property
    def oldest_signing(self) -> int:
        """Return the oldest version that signs."""
        return max(self.min_encryption_version, self.min_decryption_version, 1)

    def has_version(self, version: int) -> bool:
        """Return whether there is such a version, archived or not."""
        return max(self.min_available_version, 1) <= version <= self.latest_version


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """One version's public half, which everything that Vault signs with it has to verify under."""

    key_id: VaultKeyId
    type: str
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey

    @property
    def spki_der(self) -> bytes:
        """Return the public key in the form of certificates (RFC 5280 §4.1.2.7)."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def hash_name(self) -> str:
        """Return the hash that goes with the key, in Vault's words."""
        return _HASHES[self.type][0]

    @property
    def hash(self) -> hashes.HashAlgorithm:
        """Return the hash that goes with the key."""
        return _HASHES[self.type][1]

    @property
    def is_rsa(self) -> bool:
        """Return whether it is an RSA key, for which Vault would take PSS unless told."""
        return isinstance(self.public_key, rsa.RSAPublicKey)

    def verify_signature(self, signature: bytes, data: bytes) -> bytes:
        """Return *signature*, which is this version's over *data* and has the length it must have.

        It costs 0.1 ms.  A CA would find the fault as well, and call it malformed or unauthorized:
        that is a refusal, and a refusal is the end of the order.  Found here, the order waits until
        a person has seen to it.

        Raises:
            Broken: It is another's, or no signature.
        """
        try:
            if isinstance(self.public_key, rsa.RSAPublicKey):
                self.public_key.verify(signature, data, padding.PKCS1v15(), self.hash)
            else:
                half = (self.public_key.key_size + 7) // 8
                if len(signature) != 2 * half:
                    raise Broken(
                        f"signature by {self.key_id} has {len(signature)} bytes, "
                        f"expected {2 * half}"
                    )
                r, s = (int.from_bytes(one) for one in (signature[:half], signature[half:]))
                self.public_key.verify(encode_dss_signature(r, s), data, ec.ECDSA(self.hash))
        except InvalidSignature:
            raise Broken(
                f"signature by {self.key_id} does not verify under the key that was pinned: Vault "
                "holds another key by this name, or was restored"
            ) from None
        return signature


def parse_transit_key(where: str, data: Mapping[str, Any]) -> TransitKey:
    """Return the key that Vault tells of; *where* names it in the fault.

    Raises:
        Broken: It is not what transit says of a key.
    """
    try:
        versions = data["keys"]
        return TransitKey(
            type=_text(data["type"]),
            latest_version=_number(data["latest_version"]),
            min_encryption_version=_number(data.get("min_encryption_version", 0)),
            min_decryption_version=_number(data.get("min_decryption_version", 1)),
            min_available_version=_number(data.get("min_available_version", 0)),
            # The versions of a key that encrypts are bare times: it has no public half.
            public_keys={
                int(version): _text(made["public_key"])
                for version, made in versions.items()
                if isinstance(made, Mapping) and made.get("public_key")
            },
            auto_rotate_period=data.get("auto_rotate_period", 0),
            is_exportable=data["exportable"] is not False,
            is_plaintext_backup_allowed=data["allow_plaintext_backup"] is not False,
            is_deletion_allowed=data["deletion_allowed"] is not False,
            is_imported=data.get("imported_key", False) is not False,
            is_derived=data.get("derived", False) is not False,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Broken(f"what Vault says of {where} is not what transit says of a key") from None


def check_version(key: TransitKey, key_id: VaultKeyId) -> Sequence[KeyFault]:
    """Return why this version cannot sign; empty means that it can."""

    def fault(reason: str) -> Sequence[KeyFault]:
        return (KeyFault(key_id=str(key_id), reason=f"key {key_id} {reason}"),)

    version = key_id.version
    if key.type not in _HASHES or key.is_derived:
        made = f"is of type {key.type}{', derived' if key.is_derived else ''}"
        return fault(
            f"{made}, expected one of {', '.join(_HASHES)}, not derived; Vault never changes that: "
            "have it deleted and made anew, or keep keys at another mount"
        )
    if version > key.latest_version:
        return fault(
            f"is not in Vault, whose latest version is {key.latest_version}: Vault was restored to "
            "a time before this version was made, or keeps another key by this name"
        )
    if not key.has_version(version):
        return fault(
            f"was trimmed away, Vault keeps no version below {key.min_available_version}: nothing "
            "brings it back"
        )
    if version < key.min_decryption_version:
        return fault(
            f"is archived, min_decryption_version is {key.min_decryption_version}: "
            f"vault write {_config(key_id)} min_decryption_version={version}"
        )
    if version < key.min_encryption_version:
        return fault(
            f"signs no more, min_encryption_version is {key.min_encryption_version}: "
            f"vault write {_config(key_id)} min_encryption_version={version}"
        )
    return ()


def check_key(key: TransitKey, key_id: VaultKeyId) -> Sequence[KeyFault]:
    """Return what must not be so about the key, whichever version is in use.

    What a command puts right bars the key until that is done.  What Vault never takes back does
    not: the way out is a new key, and the old one has to sign for it (RFC 8555 §7.3.5).
    """
    found = []
    if key.auto_rotate_period not in (0, "0", "0s"):
        found.append(
            KeyFault(
                key_id=str(key_id),
                reason=f"key {key_id} rotates by itself (auto_rotate_period "
                f"{key.auto_rotate_period} s), and no CA would know the new version: "
                f"vault write {_config(key_id)} auto_rotate_period=0",
            )
        )
    if key.is_deletion_allowed:
        found.append(
            KeyFault(
                key_id=str(key_id),
                reason=f"key {key_id} can be deleted (deletion_allowed): "
                f"vault write {_config(key_id)} deletion_allowed=false",
            )
        )
    for is_so, can, word in (
        (key.is_exportable, "can be exported", "exportable"),
        (
            key.is_plaintext_backup_allowed,
            "can be backed up in the clear",
            "allow_plaintext_backup",
        ),
    ):
        if is_so:
            found.append(
                KeyFault(
                    key_id=str(key_id),
                    reason=f"key {key_id} {can} ({word}), which Vault never takes back: have a new "
                    "key made at another mount and move to it, see penstock upstream move-key",
                    kind=KeyFaultKind.EXPOSED,
                )
            )
    return found


def check_origin(key: TransitKey, key_id: VaultKeyId) -> Sequence[KeyFault]:
    """Return where the key has been before: the next version of an imported one was made in Vault,
    and so is none of this."""
    if not key.is_imported:
        return ()
    reason = f"key {key_id} was imported, so it has lived outside of Vault: rotate it"
    return (KeyFault(key_id=str(key_id), reason=reason, kind=KeyFaultKind.ORIGIN),)


def pin(key: TransitKey, key_id: VaultKeyId) -> PinnedKey:
    """Return the version's public half.

    Raises:
        Broken: It is not to be had, or is not of the type that Vault says it is.
    """
    pem = key.public_keys.get(key_id.version)
    if pem is None:
        reasons = [fault.reason for fault in check_version(key, key_id)]
        is_archived = key.has_version(key_id.version)
        if is_archived and key_id.version < key.min_decryption_version:
            raise KeyArchived(reasons[0])
        raise Broken(reasons[0] if reasons else f"Vault tells no public key of {key_id}")
    try:
        public_key = load_pem_public_key(pem.encode("ascii"))
    except ValueError:
        raise Broken(f"the public key that Vault tells of {key_id} is not PEM") from None
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Broken(f"key {key_id} is neither an EC nor an RSA key")
    if _type_of(public_key) != key.type:
        raise Broken(f"key {key_id} is {_type_of(public_key)}, and Vault says {key.type}")
    return PinnedKey(key_id, key.type, public_key)


def parse_signature(key_id: VaultKeyId, data: Mapping[str, Any]) -> bytes:
    """Return the octets of a signature that was asked for in the alphabet of JWS.

    Raises:
        Broken: It is none, or another version's.
    """
    signature = data.get("signature")
    found = _SIGNATURE.fullmatch(signature) if isinstance(signature, str) else None
    if found is None:
        raise Broken(f"what Vault answered is no signature by {key_id}")
    if int(found[1]) != key_id.version:
        raise Broken(f"Vault signed with version {found[1]}, asked was {key_id}")
    octets = found[2]
    try:
        return base64.b64decode(octets + "=" * (-len(octets) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise Broken(f"what Vault answered is no signature by {key_id}") from None


def _config(key_id: VaultKeyId) -> str:
    return f"{key_id.mount}/keys/{key_id.name}/config"


def _type_of(public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"rsa-{public_key.key_size}"
    return f"ecdsa-p{public_key.key_size}"


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("expected a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value
