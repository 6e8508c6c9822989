"""Signed sets of policy files: the exact text that people sign, and who has signed it.

    penstock-policy-bundle: 1
    for: penstock
    version: 42
    2c26b46b68ffc68ff99b453c1d304134…  communities/web.yaml
    fcde2b2edba56bf408601fb721fe9b5c…  default.yaml

A signature is over these octets and nothing else, so that ``openssl`` makes one as well as we do.
The lines of the files are what ``sha256sum`` prints.  Nothing here knows where a file lies or what
it means: a set is judged by its signatures before any of it is parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from broker.policy.yamlfile import Fault, Faults
from broker.protocol.problems import printable

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "Seal",
    "SigningKey",
    "VerifyKey",
    "check_listed",
    "digest_lines",
    "is_bundle_file",
    "key_fingerprint",
    "parse_manifest",
    "parse_verify_key",
    "set_digest",
    "verify_bundle",
]

MANIFEST_NAME: Final = "bundle.manifest"
"""File of a policy directory that lists the others, with their version."""

MAX_VERSION: Final = 10**12
"""Highest version: room for a date and time such as 202611230215, which is a good version."""

MAX_MANIFEST_BYTES: Final = 1024 * 1024
"""Largest manifest, in bytes: a line for each of 5,000 files measures about 100 bytes."""

MAX_SIGNATURES: Final = 64
"""Most signature files that are looked at: more people than sign anything."""

SigningKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
VerifyKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

_SIGNATURE_NAME: Final = re.compile(r"bundle\.[A-Za-z0-9_-]{1,64}\.sig", re.ASCII)
_AUDIENCE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_VERSION: Final = re.compile(r"[1-9][0-9]{0,12}", re.ASCII)
_FILE: Final = re.compile(r"([0-9a-f]{64})  ([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]{0,254}))")
_HEAD: Final = "penstock-policy-bundle: 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself; nobody has vouched for it yet."""

    audience: str
    """Which brokers it is for, so that a set for the laboratory is none for production."""
    version: int
    files: Mapping[str, str]
    """SHA-256 in lower case hex by name within the policy directory."""

    def __str__(self) -> str:
        """Return the text that is signed."""
        head = f"{_HEAD}\nfor: {self.audience}\nversion: {self.version}\n"
        return head + digest_lines(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What signatures have proved of a set of files."""

    version: int
    signers: tuple[str, ...]
    """The people, by their names in the configuration."""


def is_bundle_file(name: str) -> bool:
    """Return whether *name* is the manifest, or a signature over it."""
    return name == MANIFEST_NAME or _SIGNATURE_NAME.fullmatch(name) is not None


def digest_lines(files: Mapping[str, str]) -> str:
    """Return a line for each file as ``sha256sum`` prints it, sorted by name."""
    return "".join(f"{files[name]}  {name}\n" for name in sorted(files))


def set_digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 of a set: over the lines that name its files with their digests."""
    return hashlib.sha256(digest_lines(files).encode()).hexdigest()


def parse_manifest(octets: bytes, source: str = MANIFEST_NAME) -> Manifest:
    """Return what a manifest says; there is one spelling of it, to the octet.

    Raises:
        Faults: It is none.
    """
    if len(octets) > MAX_MANIFEST_BYTES:
        reason = f"is {len(octets)} bytes long, the limit is {MAX_MANIFEST_BYTES} bytes"
        raise Faults([Fault(source, 1, "", reason)])
    try:
        lines = octets.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Faults([Fault(source, 1, "", "is not UTF-8")]) from None
    faults = list(_check_lines(lines, source))
    if faults:
        raise Faults(faults[:10])
    listed = (_FILE.fullmatch(line) for line in lines[3:-1])
    made = Manifest(
        audience=lines[1].removeprefix("for: "),
        version=int(lines[2].removeprefix("version: ")),
        files={found[2]: found[1] for found in listed if found is not None},
    )
    if str(made).encode() != octets:
        reason = "names a file twice, or not in the order of the names"
        raise Faults([Fault(source, 4, "", reason, "make it with 'penstock policy bundle make'")])
    return made


def _check_lines(lines: Sequence[str], source: str) -> Iterator[Fault]:
    if lines[0] != _HEAD:
        yield Fault(source, 1, "", f"does not begin with '{_HEAD}'")
        return
    if len(lines) < 4 or lines[-1]:
        yield Fault(source, len(lines), "", "ends in the middle of a line")
        return
    audience, version = lines[1].removeprefix("for: "), lines[2].removeprefix("version: ")
    if audience == lines[1] or _AUDIENCE.fullmatch(audience) is None:
        yield Fault(source, 2, "", "expected 'for: ' and the name of the brokers it is for")
    if version == lines[2] or _VERSION.fullmatch(version) is None or int(version) > MAX_VERSION:
        yield Fault(source, 3, "", f"expected 'version: ' and a number from 1 to {MAX_VERSION}")
    for number, line in enumerate(lines[3:-1], start=4):
        if _FILE.fullmatch(line) is None:
            reason = "is no line of sha256sum: 64 hex digits, two spaces, a name"
            yield Fault(source, number, "", reason)


def parse_verify_key(text: str) -> VerifyKey:
    """Return the public key that *text* is: the base64 of a SubjectPublicKeyInfo, as in PEM.

    Raises:
        ValueError: It is none, or of a kind that does not sign bundles.
    """
    body = "".join(line for line in text.split("\n") if not line.startswith("-----"))
    try:
        found = load_der_public_key(base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key, expected what 'openssl pkey -pubout' prints") from None
    if isinstance(found, ed25519.Ed25519PublicKey):
        return found
    if isinstance(found, ec.EllipticCurvePublicKey) and found.curve.name == "secp256r1":
        return found
    raise ValueError("is of another kind than Ed25519 and ECDSA on P-256")


def key_fingerprint(key: VerifyKey) -> str:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo in lower case hex."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def verify_bundle(
    files: Mapping[str, bytes],
    bundle: Mapping[str, bytes],
    *,
    keys: Mapping[str, VerifyKey],
    needed: int,
    audience: str,
) -> Seal:
    """Return what *needed* or more of the people in *keys* have signed.

    *files* are all that would be read as policy, *bundle* the manifest and its signatures.  Every
    file has to be listed and every listed file has to be there, octet for octet.

    Raises:
        Faults: All that is wrong; nothing of the set may be used.
    """
    octets = bundle.get(MANIFEST_NAME)
    if octets is None:
        hint = "see 'penstock policy bundle make'"
        message = "is not there, and only signed policies are taken"
        raise Faults([Fault(MANIFEST_NAME, 1, "", message, hint)])
    manifest = parse_manifest(octets)
    faults = list(check_listed(files, manifest))
    if manifest.audience != audience:
        message = f"is for '{manifest.audience}', this broker takes those for '{audience}'"
        faults.append(Fault(MANIFEST_NAME, 2, "", message))
    signers = _signers(octets, bundle, keys)
    if len(signers) < needed:
        by = ", ".join(signers) or "nobody"
        message = f"is signed by {by}, which is {len(signers)} of {needed} who have to sign it"
        hint = f"signatures of {', '.join(sorted(keys))} count"
        faults.append(Fault(MANIFEST_NAME, 1, "", message, hint))
    if faults:
        raise Faults(faults[:100])
    return Seal(version=manifest.version, signers=signers)


def check_listed(files: Mapping[str, bytes], manifest: Manifest) -> Iterator[Fault]:
    """Yield what is not as *manifest* lists it."""
    for name in sorted(files.keys() | manifest.files.keys()):
        listed = manifest.files.get(name)
        if name not in files:
            yield Fault(MANIFEST_NAME, 1, "", f"lists {printable(name, 300)}, which is not there")
        elif listed is None:
            yield Fault(name, 1, "", "is not in the signed manifest")
        elif hashlib.sha256(files[name]).hexdigest() != listed:
            yield Fault(name, 1, "", "is not as it was signed")


def _signers(
    octets: bytes, bundle: Mapping[str, bytes], keys: Mapping[str, VerifyKey]
) -> tuple[str, ...]:
    """Return the people whose signature over *octets* is there; file names prove nothing."""
    found = set[str]()
    names = sorted(name for name in bundle if name != MANIFEST_NAME)[:MAX_SIGNATURES]
    for name in names:
        spellings = list(_spellings(bundle[name]))
        found |= {who for who, key in keys.items() if _has_signed(key, spellings, octets)}
    return tuple(sorted(found))


def _spellings(content: bytes) -> Iterator[bytes]:
    """Yield the signatures that a file may hold: as openssl writes it, or in base64."""
    yield content
    try:
        yield base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        return


def _has_signed(key: VerifyKey, signatures: Iterable[bytes], octets: bytes) -> bool:
    for signature in signatures:
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, octets)
            else:
                key.verify(signature, octets, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return True
    return False
