"""Trust anchors and revocation lists that the broker sends, in PEM files of their own.

What comes is taken apart first: every block is a certificate of a CA, or every block is a
revocation list, each read by OpenSSL, and nothing stands in between.  Versions of a bundle only go
up.  The system's own store is left alone, unless the node's configuration says ``system = true``
for that bundle; then each anchor goes there as a file of its own, and the system's own program is
told: on systems of the families of Debian and of Red Hat.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from agents.config import BundleContent, BundleSection
from agents.placing import DiskFault, PlacingFault, place, read_placed, remove_placed
from agents.programs import ProgramFault, run
from agents.reload import ReloadFault, reload

__all__ = [
    "BundleFault",
    "InstalledBundle",
    "SystemStore",
    "find_store",
    "install_bundle",
    "parse_bundle",
]

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
"""Largest bundle, in bytes: all public roots together measure 230 kB, and no more than this fits
into a message."""

MAX_BLOCKS: Final = 2_000
"""Most certificates or lists in a bundle; the public roots are 150."""

MAX_NOTE_BYTES: Final = 4 * 1024
"""Largest note on what was installed last, in bytes; it has under 200."""

SYSTEM_SECONDS: Final = 120
"""How long the system may take to rebuild its store, in seconds: with a Java store, 20."""

_BLOCK: Final = re.compile(
    r"-----BEGIN (CERTIFICATE|X509 CRL)-----\n([A-Za-z0-9+/=\n]+)-----END \1-----\n?"
)
_LABELS: Final = {BundleContent.ANCHORS: "CERTIFICATE", BundleContent.CRLS: "X509 CRL"}


class BundleFault(Exception):
    """The bundle is not what it should be or could not be installed; the old one is in place.

    ``is_final`` says that the same one again would not be installed either.
    """

    def __init__(self, reason: str, *, is_final: bool = True) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class InstalledBundle:
    """A bundle that is in place."""

    bundle: str
    version: int
    is_changed: bool
    """Whether anything had to be done for it."""


@dataclass(frozen=True, slots=True)
class SystemStore:
    """Where a system keeps anchors that were added to it, and how it takes them into use."""

    folder: str
    command: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        """Whether this host has both."""
        return os.path.isdir(self.folder) and os.access(self.command[0], os.X_OK)


STORES: Final = (
    SystemStore("/usr/local/share/ca-certificates", ("/usr/sbin/update-ca-certificates",)),
    SystemStore("/etc/pki/ca-trust/source/anchors", ("/usr/bin/update-ca-trust", "extract")),
)
"""Those of Debian's family and of Red Hat's; a host has one of them."""


def find_store(stores: Sequence[SystemStore] = STORES) -> SystemStore:
    """Return the system's store that this host has.

    Raises:
        BundleFault: It has none of them; with its package installed it may have one later.
    """
    for store in stores:
        if store.is_here:
            return store
    known = ", ".join(f"{one.folder} with {one.command[0]}" for one in stores)
    raise BundleFault(
        f"this host has no store of the system's that is known: {known}", is_final=False
    )


def parse_bundle(content: BundleContent, pem: str) -> tuple[bytes, ...]:
    """Return the DER of each block of *pem*, all of them of the kind that *content* names.

    Raises:
        BundleFault: A block is something else or can't be read, or there is none.
    """
    if len(pem) > MAX_BUNDLE_BYTES or not pem.isascii():
        raise BundleFault(f"it is past {MAX_BUNDLE_BYTES} bytes, or no PEM")
    text = pem.replace("\r\n", "\n")
    blocks = []
    position = 0
    while text[position:].strip():
        found = _BLOCK.match(text, position + _blank(text, position))
        if found is None or found[1] != _LABELS[content]:
            raise BundleFault(f"it has something else than blocks of {_LABELS[content]}")
        blocks.append(_decode(found[2]))
        position = found.end()
        if len(blocks) > MAX_BLOCKS:
            raise BundleFault(f"it has more than {MAX_BLOCKS} blocks")
    unique = tuple(dict.fromkeys(blocks))
    if not unique:
        raise BundleFault("it is empty, and an empty bundle would trust nobody")
    _read_by_openssl(content, unique)
    return unique


def install_bundle(
    section: BundleSection,
    body: Mapping[str, Any],
    *,
    state: str,
    allowed: Sequence[str],
    store: SystemStore | None = None,
) -> InstalledBundle:
    """Put the bundle of message *body* where *section* says, and reload what *section* says.

    *state* is the agent's own folder, where the version is noted.  The same version again does
    nothing, unless the file has changed since.  If the reload fails the old bundle is put back.

    Raises:
        BundleFault: It was refused or could not be installed.
    """
    name, version = section.name, int(body["version"])
    if body["content"] != section.content.value:
        raise BundleFault(f"bundle {name!r} holds {section.content}, and was sent something else")
    blocks = parse_bundle(section.content, body["pem"])
    made = _format(section.content, blocks)
    note = os.path.join(state, "bundles", f"{name}.json")
    before = _noted_version(note, state)
    if version < before:
        raise BundleFault(f"version {version} of bundle {name!r} is older than {before}, installed")
    try:
        old = read_placed(section.file, below=allowed, most_bytes=2 * MAX_BUNDLE_BYTES)
        is_changed = old != made or version != before
        if old != made:
            place(section.file, made, below=allowed)
        if is_changed:
            # Also where the file is there already: the agent may have ended before the reload.
            _reload(section, lambda: _put_back(section.file, old, allowed))
        if is_changed and section.system:
            _teach_system(name, blocks, store or find_store())
        document = {"version": version, "sha256": hashlib.sha256(made).hexdigest()}
        place(note, json.dumps(document).encode(), below=(state,), mode=0o600)
    except PlacingFault as error:
        raise BundleFault(str(error), is_final=not isinstance(error, DiskFault)) from None
    return InstalledBundle(name, version, is_changed)


def _blank(text: str, position: int) -> int:
    rest = text[position : position + 1024]
    return len(rest) - len(rest.lstrip())


def _decode(body: str) -> bytes:
    try:
        der = base64.b64decode(body.replace("\n", ""), validate=True)
    except (ValueError, binascii.Error):
        raise BundleFault("a block is not base64") from None
    if not _is_one_sequence(der):
        raise BundleFault("a block is cut off, or has something behind its end")
    return der


def _is_one_sequence(der: bytes) -> bool:
    """Say whether *der* is one DER sequence and nothing else (X.690 §8.1.3)."""
    if len(der) < 4 or der[0] != 0x30:
        return False
    count = der[1] & 0x7F if der[1] & 0x80 else 0
    if count > 4 or (der[1] & 0x80 and not count):
        return False
    length = int.from_bytes(der[2 : 2 + count], "big") if count else der[1]
    return len(der) == 2 + count + length


def _read_by_openssl(content: BundleContent, blocks: Sequence[bytes]) -> None:
    """Let OpenSSL read *blocks* as it would for verifying with them, and count what it found."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    descriptor = os.memfd_create("bundle")
    try:
        os.write(descriptor, _format(content, blocks))
        context.load_verify_locations(cafile=f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, OSError):
        raise BundleFault(f"a block is no {_LABELS[content]} that OpenSSL can read") from None
    finally:
        os.close(descriptor)
    found = context.cert_store_stats()
    if content is BundleContent.CRLS:
        if found["crl"] != len(blocks):
            raise BundleFault(f"{found['crl']} of {len(blocks)} blocks are revocation lists")
    elif found["x509_ca"] != len(blocks):
        raise BundleFault(f"{found['x509_ca']} of {len(blocks)} certificates are those of a CA")


def _format(content: BundleContent, blocks: Sequence[bytes]) -> bytes:
    label = _LABELS[content]
    return b"".join(
        f"-----BEGIN {label}-----\n".encode()
        + _lines(base64.b64encode(der))
        + f"-----END {label}-----\n".encode()
        for der in blocks
    )


def _lines(encoded: bytes) -> bytes:
    return b"".join(encoded[at : at + 64] + b"\n" for at in range(0, len(encoded), 64))


def _noted_version(note: str, state: str) -> int:
    """Return the version that was installed last; a note that is lost or spoilt is none."""
    try:
        content = read_placed(note, below=(state,), most_bytes=MAX_NOTE_BYTES)
        version = json.loads(content)["version"] if content else 0
    except (PlacingFault, ValueError, KeyError, TypeError):
        return 0
    return version if isinstance(version, int) else 0


def _reload(section: BundleSection, put_back: Callable[[], None]) -> None:
    try:
        reload(section.reload, ())
    except ReloadFault as error:
        put_back()
        raise BundleFault(f"bundle {section.name!r}: {error}; the old one was put back") from None


def _put_back(path: str, old: bytes | None, allowed: Sequence[str]) -> None:
    if old is None:
        remove_placed(path, below=allowed)
    else:
        place(path, old, below=allowed)


def _teach_system(name: str, blocks: Sequence[bytes], store: SystemStore) -> None:
    """Make the anchors of bundle *name* in the system's store be exactly *blocks*."""
    wanted = {f"penstock-{name}-{hashlib.sha256(der).hexdigest()[:16]}.crt": der for der in blocks}
    ours = re.compile(rf"penstock-{re.escape(name)}-[0-9a-f]{{16}}\.crt")
    for file in os.listdir(store.folder):
        if ours.fullmatch(file) and file not in wanted:
            remove_placed(os.path.join(store.folder, file), below=(store.folder,))
    for file, der in wanted.items():
        made = _format(BundleContent.ANCHORS, (der,))
        place(os.path.join(store.folder, file), made, below=(store.folder,))
    try:
        finished = run(store.command, limit=timedelta(seconds=SYSTEM_SECONDS))
    except ProgramFault as error:
        raise BundleFault(f"the system's store was not rebuilt: {error}") from None
    if finished.status != 0:
        raise BundleFault(
            f"the system's store was not rebuilt: {store.command[0]} {finished.ending}"
        )
