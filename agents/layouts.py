"""How key and chain lie in files, for each layout that servers read.  Pure.

Layouts of several files have one stable name for each, which is a symlink through ONE link into a
folder that is never changed (``fullchain.pem`` → ``current/fullchain.pem``, ``current`` →
``.penstock-…``); renaming that one link switches all of them.  Layouts of one file are renamed
themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["KEY_NAMES", "LayoutFault", "Material", "Piece", "Plan", "make_plan"]

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\s*", re.DOTALL)

MAX_ANCHORS_CHARS: Final = 64 * 1024
"""Largest file of anchors that is given on as ``ca.crt``, in characters; a community's own measures
a few kB, and a whole system store has no business there."""

KEY_NAMES: Final = {
    "pem": "privkey.pem",
    "certbot": "privkey.pem",
    "kubernetes": "tls.key",
}
"""Name of the private key in each layout of several files."""

_CHAIN_NAMES: Final = {"pem": "fullchain.pem", "certbot": "fullchain.pem", "kubernetes": "tls.crt"}
_ENDINGS: Final = {"combined": ".pem", "pkcs12": ".p12"}


class LayoutFault(Exception):
    """A layout cannot hold this."""


class Files(Protocol):
    """What is read of a certificate's section about its files."""

    @property
    def layout(self) -> object: ...
    @property
    def directory(self) -> str: ...
    @property
    def file(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is laid out."""

    chain_pem: str
    key_pem: bytes | None
    """None: it is on a token, and ``key_uri`` names it."""
    key_uri: str | None = None
    anchors_pem: str | None = None
    pkcs12: bytes | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One file."""

    name: str
    octets: bytes
    is_secret: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What files there are to be, in which folder."""

    folder: str
    pieces: tuple[Piece, ...]
    link: str | None
    """Name of the one link that is switched; None: a layout of one file."""

    @property
    def dots(self) -> str:
        """What our own names begin with: kubelet's way has two dots, others ignore one."""
        return ".." if self.link == "..data" else "."


def place_of(files: Files) -> tuple[str, str | None, tuple[str, ...]]:
    """Return folder, link (None: one file) and stable names of a layout."""
    layout = str(files.layout)
    if layout in _ENDINGS:
        return files.directory, None, (files.file + _ENDINGS[layout],)
    if layout == "kubernetes":
        return files.directory, "..data", ("tls.crt", "tls.key", "ca.crt")
    if layout == "certbot":
        folder = f"{files.directory}/live/{files.file}"
        return folder, "current", ("cert.pem", "chain.pem", "fullchain.pem", "privkey.pem")
    return files.directory, "current", ("fullchain.pem", "privkey.pem")


def make_plan(files: Files, material: Material) -> Plan:
    """Return what is to be written.

    Raises:
        LayoutFault: The layout needs the key itself, and that is on a token.
    """
    layout = str(files.layout)
    folder, link, names = place_of(files)
    if layout == "pkcs12":
        if material.pkcs12 is None:
            raise LayoutFault("layout pkcs12 needs the key itself, and it is on a token")
        return Plan(folder, (Piece(names[0], material.pkcs12, is_secret=True),), None)
    chain = material.chain_pem.encode("ascii")
    if layout == "combined":
        if material.key_pem is None:
            raise LayoutFault("layout combined needs the key itself, and it is on a token")
        return Plan(folder, (Piece(names[0], chain + material.key_pem, is_secret=True),), None)
    pieces = [Piece(_CHAIN_NAMES[layout], chain, is_secret=False), _key_piece(layout, material)]
    certificates = _BLOCK.findall(material.chain_pem)
    issuers = "".join(certificates[1:]).encode("ascii")
    if layout == "certbot":
        pieces += [
            Piece("cert.pem", certificates[0].encode("ascii"), is_secret=False),
            Piece("chain.pem", issuers, is_secret=False),
        ]
    if layout == "kubernetes":
        pieces.append(Piece("ca.crt", _authority(material.anchors_pem) or issuers, is_secret=False))
    return Plan(folder, tuple(pieces), link)


def _key_piece(layout: str, material: Material) -> Piece:
    name = KEY_NAMES[layout]
    if material.key_pem is not None:
        return Piece(name, material.key_pem, is_secret=True)
    stem = name.rpartition(".")[0]
    return Piece(f"{stem}.uri", f"{material.key_uri}\n".encode("ascii"), is_secret=True)


def _authority(anchors_pem: str | None) -> bytes:
    if anchors_pem is None or len(anchors_pem) > MAX_ANCHORS_CHARS:
        return b""
    return "".join(_BLOCK.findall(anchors_pem)).encode("ascii")
