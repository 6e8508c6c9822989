"""What tests of installing share: a pair before and after, laid out, read as a server reads it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12

from agents.config import CertificateSection, ExpectsSection, FilesSection, Layout
from agents.install import InstallFault
from agents.verify import Verified
from tests.fakes.node_authority import Node

FILES = {
    Layout.PEM: ("fullchain.pem", "privkey.pem"),
    Layout.KUBERNETES: ("tls.crt", "tls.key"),
    Layout.CERTBOT: ("live/www/fullchain.pem", "live/www/privkey.pem"),
    Layout.COMBINED: ("www.pem", "www.pem"),
    Layout.PKCS12: ("www.p12", "www.p12"),
}
"""Which files a server is given, below the certificate's folder."""


def served(folder: Path, layout: Layout) -> str | None:
    """Return the fingerprint of what a server would serve; None: it finds nothing there.

    Fails where chain and key do not belong together, or one is there without the other.
    """
    chain, key = (folder / one for one in FILES[layout])
    if not chain.exists() and not key.exists():
        return None
    if layout is Layout.PKCS12:
        return _served_packed(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    der = ssl.PEM_cert_to_DER_cert(chain.read_text("ascii").partition("-----END")[0] + _END)
    return hashlib.sha256(der).hexdigest()


_END = "-----END CERTIFICATE-----\n"


def _served_packed(path: Path) -> str:
    """Return the fingerprint of what lies in a PKCS#12, whose key has to belong to it."""
    key, leaf, _ = pkcs12.load_key_and_certificates(path.read_bytes(), PASSWORD)
    assert key is not None
    assert leaf is not None
    assert key.public_key() == leaf.public_key()
    return leaf.fingerprint(hashes.SHA256()).hex()


PASSWORD = b"open sesame"
"""What `Node` has in the file that opens its PKCS#12."""


@dataclass
class Scene:
    """A folder as it was before, and a pair that is to take its place."""

    node: Node
    section: CertificateSection
    old: str | None
    verified: Verified
    key: str

    @property
    def folder(self) -> Path:
        """Where the certificate lies."""
        assert self.section.files is not None
        return Path(self.section.files.directory)

    @property
    def layout(self) -> Layout:
        """How."""
        assert self.section.files is not None
        return self.section.files.layout

    def served(self) -> str | None:
        """Return what a server would serve."""
        return served(self.folder, self.layout)

    def keep(self) -> None:
        """Keep folder and state as they are now."""
        for one in (self.node.tls, self.node.state):
            shutil.copytree(one, one.with_name(f"{one.name}.kept"), symlinks=True)

    def put_back(self) -> None:
        """Make folder and state what was kept."""
        for one in (self.node.tls, self.node.state):
            shutil.rmtree(one)
            shutil.copytree(one.with_name(f"{one.name}.kept"), one, symlinks=True)

    def order(self, call: str, calls_before: int) -> dict[str, Any]:
        """Return the worker's order."""
        files = dataclasses.asdict(self.section.files) if self.section.files is not None else {}
        return {
            "call": call,
            "calls_before": calls_before,
            "files": {**files, "layout": str(self.layout)},
            "verified": {
                **dataclasses.asdict(self.verified),
                "not_before": self.verified.not_before.isoformat(),
                "not_after": self.verified.not_after.isoformat(),
            },
            "key": self.key,
            "allowed": list(self.node.allowed),
            "state": str(self.node.state),
        }


def parse_order(order: Any) -> tuple[CertificateSection, Verified, str, tuple[str, ...], str]:
    """Return what an order says."""
    files = FilesSection(**{**order["files"], "layout": Layout(order["files"]["layout"])})
    verified = dict(order["verified"])
    for one in ("not_before", "not_after"):
        verified[one] = datetime.fromisoformat(verified[one])
    section = CertificateSection(
        name="www", names=("www.example",), files=files, expects=ExpectsSection(anchors=None)
    )
    return section, Verified(**verified), order["key"], tuple(order["allowed"]), order["state"]


def describe(fault: InstallFault) -> None:
    """An install that was refused says why."""
    assert fault.reason


def given(tmp_path: Path, layout: Layout, before: str) -> Scene:
    """Return a scene; *before* is ``nothing``, ``ours`` or ``plain`` files of somebody else's."""
    node = Node(tmp_path)
    section = node.section(layout)
    old = None
    if before != "nothing":
        verified, key = node.obtain(section)
        old = verified.fingerprint
        if before == "ours":
            node.install(section, verified, key).settle()
        else:
            lay_plain(node, section, verified, Path(key).read_text("ascii"))
    verified, key = node.obtain(section)
    scene = Scene(node, section, old, verified, key)
    assert scene.served() == old
    scene.keep()
    return scene


def lay_plain(node: Node, section: CertificateSection, verified: Verified, key: str) -> None:
    """Write a pair the way people and certbot do."""
    assert section.files is not None
    folder, layout = Path(section.files.directory), section.files.layout
    chain_name, key_name = FILES[layout]
    if layout is Layout.COMBINED:
        folder.mkdir(parents=True)
        (folder / chain_name).write_text(verified.chain_pem + key, encoding="ascii")
        return
    target = (folder / chain_name).parent
    target.mkdir(parents=True)
    leaf = verified.chain_pem.partition(_END)[0] + _END
    texts = {Path(chain_name).name: verified.chain_pem, Path(key_name).name: key}
    if layout is not Layout.CERTBOT:
        for name, text in texts.items():
            (target / name).write_text(text, encoding="ascii")
        return
    texts |= {"cert.pem": leaf, "chain.pem": verified.chain_pem.removeprefix(leaf)}
    archive = folder / "archive" / "www"
    archive.mkdir(parents=True)
    for name, text in texts.items():
        numbered = name.replace(".pem", "3.pem")
        (archive / numbered).write_text(text, encoding="ascii")
        (target / name).symlink_to(f"../../archive/www/{numbered}")


SCENES = [
    (Layout.PEM, "nothing"),
    (Layout.PEM, "ours"),
    (Layout.PEM, "plain"),
    (Layout.KUBERNETES, "ours"),
    (Layout.CERTBOT, "plain"),
    (Layout.COMBINED, "nothing"),
    (Layout.COMBINED, "ours"),
    (Layout.PKCS12, "ours"),
]
"""Layouts, and what is there before: each way that a switch can go, once."""


def leftovers(folder: Path) -> Iterator[str]:
    """Return names of ours below a folder that belong to nothing."""
    for path in folder.rglob("*"):
        if path.name.lstrip(".").startswith("penstock-") and path.exists():
            yield path.name
