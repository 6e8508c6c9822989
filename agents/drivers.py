"""Devices that cannot run an agent: a program beside it speaks to them, and their keys stay there.

A driver is a program that the node's own configuration names.  For each operation it is started
once, reads one JSON object from standard input, writes one to standard output and ends: ``csr``
(the device makes a key and a CSR, or a CSR for the key it has), ``install`` (it takes the chain),
``verify`` (which certificate does it serve), ``undo`` (go back, where a device can).  What it
answers is believed only as far as it can be checked here: a CSR has to be one, and what is served
has to be what was installed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.config import CertificateSection
from agents.programs import Finished, ProgramFault, run

__all__ = ["DeviceCsr", "DriverFault", "OnDevice", "install", "look", "make_csr", "spki_of_csr"]

VERSION: Final = 1
"""Of the objects that are exchanged; members are only added within a version."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Largest answer of a driver, in bytes; a CSR for 100 names under RSA-4096 measures 10 KiB."""

MAX_REASON_CHARS: Final = 300
"""How much of a driver's own words is passed on, in characters."""


class DriverFault(Exception):
    """The device did not do what it was asked to; what it serves is as it was, as far as is known.

    ``is_final`` means that trying again will not help; ``complaint`` is what the driver wrote to
    its standard error, for the node's own log.
    """

    def __init__(self, reason: str, *, is_final: bool = False, complaint: str = "") -> None:
        super().__init__(reason)
        self.is_final = is_final
        self.complaint = complaint


@dataclass(frozen=True, slots=True)
class DeviceCsr:
    """A CSR whose key lies on the device."""

    csr_der: bytes
    spki_sha256: str
    """SHA-256 of the public key's DER, in lower case hex."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A chain that a device has taken."""

    section: CertificateSection

    def undo(self) -> None:
        """Have the device go back to what it had; raises DriverFault where it cannot."""
        _ask(self.section, "undo", {})

    def settle(self) -> None:
        """Leave it as it is: what the device had before was its own."""


def make_csr(section: CertificateSection, *, is_new_key: bool = True) -> DeviceCsr:
    """Return a CSR of the device for the names of *section*; raises DriverFault."""
    asked = {"key_kind": str(section.key.kind), "is_new_key": is_new_key}
    csr_der = _pem_block(_text(_ask(section, "csr", asked), "csr_pem"), "CERTIFICATE REQUEST")
    return DeviceCsr(csr_der, hashlib.sha256(spki_of_csr(csr_der)).hexdigest())


def install(section: CertificateSection, chain_pem: str, fingerprint: str) -> OnDevice:
    """Give the device its chain, leaf first; raises DriverFault.

    The same chain again is no fault: a driver may be asked twice after a crash.
    """
    _ask(section, "install", {"chain_pem": chain_pem, "fingerprint": fingerprint})
    return OnDevice(section)


def look(section: CertificateSection, fingerprint: str) -> None:
    """See that the device has the certificate with *fingerprint*; raises DriverFault."""
    answer = _ask(section, "verify", {"fingerprint": fingerprint})
    served = _text(answer, "fingerprint").replace(":", "").lower()
    if served != fingerprint:
        shown = served[:16] if served.isalnum() else "something else"
        raise DriverFault(f"the device serves {shown} instead of {fingerprint[:16]}")


def _ask(section: CertificateSection, operation: str, members: Mapping[str, Any]) -> dict[str, Any]:
    assert section.driver is not None
    question = {
        "version": VERSION,
        "operation": operation,
        "certificate": section.name,
        "names": list(section.names),
        **members,
    }
    try:
        finished = run(
            section.driver.command,
            limit=section.driver.timeout,
            given=json.dumps(question).encode(),
            most_output_bytes=MAX_ANSWER_BYTES,
        )
    except ProgramFault as error:
        raise DriverFault(f"{operation}: {error}") from None
    answer = _read(finished.output)
    if finished.status != 0 or answer is None or "error" in answer:
        raise _fault(operation, finished, answer or {})
    return answer


def _fault(operation: str, finished: Finished, answer: Mapping[str, Any]) -> DriverFault:
    error = answer.get("error")
    said = error if isinstance(error, str) else f"the driver {finished.ending} without an answer"
    cleaned = "".join(one if one.isprintable() else " " for one in said[:MAX_REASON_CHARS])
    is_final = answer.get("is_final") is True
    return DriverFault(f"{operation}: {cleaned}", is_final=is_final, complaint=finished.complaint)


def spki_of_csr(csr_der: bytes) -> bytes:
    """Return the DER of the public key in a CSR (RFC 2986 §4.1); raises DriverFault.

    Its signature and names are for the broker to check, which forwards it byte for byte.
    """
    request, rest = _element(csr_der, 0x30)
    info, _ = _element(request, 0x30)
    _, after_version = _element(info, 0x02)
    _, after_subject = _element(after_version, 0x30)
    _, after_key = _element(after_subject, 0x30)
    if rest:
        raise DriverFault("the device's CSR has something behind its end")
    return after_subject[: len(after_subject) - len(after_key)]


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return what the element at the front of *der* holds, and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise DriverFault("the device's CSR is no PKCS #10 request")
    count = der[1] & 0x7F if der[1] & 0x80 else 0
    length = int.from_bytes(der[2 : 2 + count], "big") if count else der[1]
    begin = 2 + count
    if count > 4 or (der[1] & 0x80 and not count) or len(der) < begin + length:
        raise DriverFault("the device's CSR is cut off")
    return der[begin : begin + length], der[begin + length :]


def _pem_block(text: str, label: str) -> bytes:
    """Return the DER of the one PEM block in *text*; devices call a CSR ``NEW`` at times."""
    cleaned = text.replace("BEGIN NEW ", "BEGIN ").replace("END NEW ", "END ")
    head, begin, rest = cleaned.partition(f"-----BEGIN {label}-----")
    body, end, tail = rest.partition(f"-----END {label}-----")
    if not begin or not end or "-----" in head + body + tail:
        raise DriverFault(f"the device sent no single block of {label}")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (ValueError, binascii.Error):
        raise DriverFault("the device's CSR is not base64") from None


def _read(output: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str):
        raise DriverFault(f"the driver's answer has no {name}")
    return found
