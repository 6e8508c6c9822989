"""A signer that keeps its keys in memory and counts what it signs."""

import asyncio
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.key_ports import KeyFault


class FakeSigner:
    """``issuance.key_ports.KeyStores``, which can be told to fail.

    ``is_away`` makes it unreachable; ``is_lying`` makes it sign something else.
    """

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {}
        self.faults: list[KeyFault] = []
        self.signatures = 0
        self.is_away = False
        self.is_lying = False

    async def create_key(self, key_id: str, kind: str) -> bytes:
        if key_id in self.keys:
            raise Conflict(f"there is a key '{key_id}'")
        family, _, size = kind.partition("-")
        if family == "rsa":
            self.keys[key_id] = rsa.generate_private_key(65537, int(size))
        else:
            curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
            self.keys[key_id] = ec.generate_private_key(curves[size])
        return await self.public_key(key_id)

    async def public_key(self, key_id: str) -> bytes:
        if key_id not in self.keys:
            raise Broken(f"there is no key '{key_id}'")
        public_key = self.keys[key_id].public_key()
        return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def public_key_now(self, key_id: str) -> bytes:
        return await self.public_key(key_id)

    async def has_key(self, key_id: str) -> bool:
        return key_id in self.keys

    async def destroy_key(self, key_id: str) -> None:
        self.keys.pop(key_id, None)

    async def retire_before(self, key_id: str) -> None:
        """There are no versions here."""

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        return [fault for fault in self.faults if fault.key_id == key_id]

    async def sign(self, key_id: str, data: bytes) -> bytes:
        if self.is_away:
            raise Unreachable("the signer is away")
        await asyncio.sleep(0)  # others get their turn, as with a signer that is elsewhere
        if key_id not in self.keys:
            raise Broken(f"there is no key '{key_id}'")
        self.signatures += 1
        key = self.keys[key_id]
        signed = data + b"!" if self.is_lying else data
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        octets = key.key_size // 8
        hash_ = hashes.SHA256() if octets == 32 else hashes.SHA384()
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hash_)))
        return r.to_bytes(octets, "big") + s.to_bytes(octets, "big")
