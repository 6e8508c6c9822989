"""PEM as it stands in files: certificates and keys found, and certificates written.

Pure.  What is between the blocks is passed over, for people keep notes there (RFC 7468 §2).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from agents.crafting_ports import CraftFault

__all__ = ["first_key", "pem_certificates", "to_pem"]

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)"
    r"-----END (?:TRUSTED |X509 )?CERTIFICATE-----"
)
_KEY: Final = re.compile(
    rb"-----BEGIN ((?:RSA |EC |ENCRYPTED )?PRIVATE KEY)-----\s.+?-----END \1-----", re.DOTALL
)

LINE_CHARS: Final = 64
"""Characters in a line of PEM (RFC 7468 §2)."""


def pem_certificates(text: str) -> list[bytes]:
    """Return the certificates in *text* in DER, as they stand; raises CraftFault."""
    found = []
    for match in _CERTIFICATE.finditer(text):
        try:
            found.append(base64.b64decode("".join(match[1].split()), validate=True))
        except (ValueError, binascii.Error):
            raise CraftFault("a certificate in PEM is no base64") from None
    return found


def to_pem(certificates: Sequence[bytes]) -> bytes:
    """Return certificates in PEM, one after the other."""
    lines = []
    for certificate in certificates:
        text = base64.b64encode(certificate).decode()
        lines.append("-----BEGIN CERTIFICATE-----")
        lines += [text[at : at + LINE_CHARS] for at in range(0, len(text), LINE_CHARS)]
        lines.append("-----END CERTIFICATE-----")
    return "".join(f"{line}\n" for line in lines).encode()


def first_key(text: bytes) -> bytes:
    """Return the one private key in *text*, in PEM, out of whatever it stands among.

    Raises:
        CraftFault: There is none, or there are several and nobody said which.
    """
    found = list(_KEY.finditer(text))
    if len(found) != 1:
        raise CraftFault(f"{len(found)} private keys in PEM where one should be")
    if found[0][1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in found[0][0]:
        raise CraftFault("the key is encrypted, and nobody is here to type its password")
    return found[0][0] + b"\n"
