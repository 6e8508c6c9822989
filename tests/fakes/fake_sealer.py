"""Seals in memory, with a real cipher, and can be away."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import Sealed


class FakeSealer:
    """``issuance.key_ports.Sealer`` whose keys are its own."""

    def __init__(self) -> None:
        self._keys = {"file:1": AESGCM.generate_key(256)}
        self._latest = "file:1"
        self.is_away = False
        self.opened: list[str] = []
        """Contexts of what was unsealed."""
        self.sealed = 0
        """How much was sealed."""

    def rotate(self) -> str:
        """Seal under another key from now on; return its name."""
        self._latest = f"file:{len(self._keys) + 1}"
        self._keys[self._latest] = AESGCM.generate_key(256)
        return self._latest

    async def sealing_key(self) -> str:
        """See the port."""
        self._see_that_it_is_here()
        return self._latest

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """See the port."""
        self._see_that_it_is_here()
        self.sealed += 1
        nonce = secrets.token_bytes(12)
        cipher = AESGCM(self._keys[self._latest])
        return Sealed(self._latest, nonce + cipher.encrypt(nonce, secret, context.encode()))

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """See the port."""
        self._see_that_it_is_here()
        self.opened.append(context)
        try:
            cipher = AESGCM(self._keys[sealed.by])
            return cipher.decrypt(sealed.octets[:12], sealed.octets[12:], context.encode())
        except (KeyError, InvalidTag):
            raise Broken(f"secret of {context} does not open") from None

    def _see_that_it_is_here(self) -> None:
        if self.is_away:
            raise Unreachable("the sealer is away")
