"""Weak, leaked and blocked public keys, found without asking anybody.

RSA keys go through the checks of badkeys that need no download; its own list of compromised keys
is one that must be fetched, so it is left out, and operators bring theirs as a file of SPKI
hashes.  Elliptic-curve keys have no arithmetic weakness worth a search: a point that is not on
its curve does not parse.  Which kinds and sizes a profile allows is policy's affair; here stand
the bounds that no policy may leave.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.issuance.errors import Broken
from broker.protocol.csr import ParsedCsr

__all__ = ["OfflineKeyInspector", "find_weaknesses", "parse_block_list"]

MIN_RSA_BITS: Final = 2048
"""Smallest RSA modulus, in bits: the floor of the CA/Browser Forum."""

MAX_RSA_BITS: Final = 4096
"""Largest RSA modulus, in bits: what public CAs take.  It also bounds the checks' time."""

MIN_RSA_EXPONENT: Final = 65537
"""Smallest RSA exponent.  Smaller ones made forged signatures pass careless verifiers."""

MAX_RSA_EXPONENT_BITS: Final = 256
"""Longest RSA exponent, in bits: the upper bound of the CA/Browser Forum."""

MAX_BLOCK_LIST_BYTES: Final = 64 * 1024 * 1024
"""Largest block list that is read, in bytes: a million hashes, whose set takes 150 MB."""

RSA_CHECKS: Final = {
    "fermat": "has two primes so close that they are found at once (CVE-2022-26320)",
    "roca": "was made by a chip with the ROCA fault (CVE-2017-15361)",
    "rsainvalid": "has an exponent that no RSA key has",
    "rsapoly": "has a modulus with a pattern that lets it be factored",
    "sharedprimes": "shares a prime with a key that is known",
    "smalld": "has a private exponent so small that it is found (Wiener's attack)",
    "smallfactors": "has a prime factor of at most 65537",
    "rsabias": "has a modulus with far too many or too few set bits",
    "pattern": "has a modulus that repeats a byte sixteen times",
    "xzbackdoor": "carries the payload of the xz backdoor (CVE-2024-3094)",
}
"""What each check of badkeys found, as the rest of a sentence about the key.

Left out are ``blocklist``, which ends the process when its download is missing, and
``rsawarnings``, whose rules on size and exponent stand here with our own bounds.
"""

_HASH_LINE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class OfflineKeyInspector:
    """Implements ``issuance.ports.KeyInspector`` without network."""

    def __init__(self, block_lists: Sequence[Path] = ()) -> None:
        """Read the operator's block lists; a change to them is seen at the next start.

        Raises:
            Broken: A list cannot be read or has a malformed line, named as file:line.
        """
        self._blocked: dict[bytes, str] = {}
        for path in block_lists:
            for digest in parse_block_list(_read(path), source=str(path)):
                self._blocked.setdefault(digest, path.name)

    async def inspect(self, csr: ParsedCsr) -> Sequence[str]:
        """Return a sentence for each weakness found; empty means none is known."""
        return await self._inspect(bytes.fromhex(csr.spki_sha256), csr.public_key)

    async def inspect_key(self, spki_der: bytes) -> Sequence[str]:
        """Return a sentence for each weakness of a key that stands in no CSR."""
        return await self._inspect(hashlib.sha256(spki_der).digest(), load_der_public_key(spki_der))

    async def _inspect(self, digest: bytes, key: object) -> Sequence[str]:
        blocked = self._blocked.get(digest)
        found = [f"key is on the block list '{blocked}'"] if blocked is not None else []
        if isinstance(key, rsa.RSAPublicKey):
            # 0.5 ms for a good key once badkeys is loaded, which takes 0.15 s itself.
            found.extend(await asyncio.to_thread(find_weaknesses, key))
        return tuple(found)


def find_weaknesses(key: rsa.RSAPublicKey) -> tuple[str, ...]:
    """Return a sentence for each weakness of an RSA key; blocks for some milliseconds."""
    numbers = key.public_numbers()
    out_of_bounds = tuple(_check_bounds(numbers))
    if out_of_bounds and key.key_size > MAX_RSA_BITS:
        return out_of_bounds  # the checks below take time that grows with the size

    # Here and not above: it takes 0.15 s and sets a warnings filter, for RSA alone.
    from badkeys.checks import checkrsa

    results = checkrsa(numbers.n, e=numbers.e, checks=tuple(RSA_CHECKS))
    return (*out_of_bounds, *(f"RSA key {RSA_CHECKS[name]}" for name in results))


def _check_bounds(numbers: rsa.RSAPublicNumbers) -> Iterator[str]:
    bits = numbers.n.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        yield f"RSA key has {bits} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}"
    elif bits % 8:
        yield f"RSA key has {bits} bits, expected a multiple of 8"
    e = numbers.e
    if e.bit_length() > MAX_RSA_EXPONENT_BITS:
        yield f"RSA exponent has {e.bit_length()} bits, expected at most {MAX_RSA_EXPONENT_BITS}"
    elif e < MIN_RSA_EXPONENT or e % 2 == 0:
        yield f"RSA exponent is {e}, expected an odd one from {MIN_RSA_EXPONENT}"


def parse_block_list(content: bytes, *, source: str) -> frozenset[bytes]:
    """Return the SPKI SHA-256 digests of a block list: one in hex a line, ``#`` comments.

    Raises:
        Broken: A line is anything else; the sentence starts with *source* and its line number.
    """
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        broken = content.count(b"\n", 0, error.start) + 1
        raise Broken(f"{source}:{broken}: is not UTF-8") from error
    digests = set()
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip().lower()
        if not text:
            continue
        if _HASH_LINE.fullmatch(text) is None:
            raise Broken(
                f"{source}:{number}: is not a SHA-256 in hex, expected 64 hex digits, "
                "or a comment that starts with #"
            )
        digests.add(bytes.fromhex(text))
    return frozenset(digests)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BLOCK_LIST_BYTES + 1)
    except OSError as error:
        raise Broken(f"block list {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BLOCK_LIST_BYTES:
        raise Broken(f"block list {path} is larger than {MAX_BLOCK_LIST_BYTES} bytes")
    return content
