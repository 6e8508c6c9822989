"""Anchors and revocation lists are read before they are written, and only go forward."""

import base64
import datetime
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from agents.bundles import (
    BundleFault,
    InstalledBundle,
    SystemStore,
    find_store,
    install_bundle,
    parse_bundle,
)
from agents.config import BundleContent, BundleSection, ReloadSection
from tests.peers import authority

ANCHORS, CRLS = BundleContent.ANCHORS, BundleContent.CRLS


def root(name: str = "Root") -> str:
    """Return a root's certificate as PEM."""
    return authority.make_root(name).certificate_pem.decode()


def leaf() -> str:
    """Return a server's certificate as PEM."""
    made = authority.make_server(authority.make_root("Root"), ["host.example"])
    return made.certificate_pem.decode()


def crl(name: str = "Root") -> str:
    """Return a revocation list as PEM."""
    signer = authority.make_root(name)
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(begin)
        .next_update(begin + datetime.timedelta(days=7))
        .sign(signer.key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def block(label: str, der: bytes) -> str:
    """Return one block of PEM."""
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n"


def der_of(pem: str) -> bytes:
    """Return what a block of PEM holds."""
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


class Place:
    """A node with one bundle."""

    def __init__(self, tmp_path: Path, **members: Any) -> None:
        self.file = tmp_path / "allowed" / "anchors.pem"
        self.file.parent.mkdir(exist_ok=True)
        (tmp_path / "state").mkdir(exist_ok=True)
        self._state = str(tmp_path / "state")
        self._section = BundleSection(name="corp", file=str(self.file), **members)

    def install(
        self, pem: str, version: int, content: str = "anchors", **more: Any
    ) -> InstalledBundle:
        """Install what the broker sent."""
        body = {"bundle": "corp", "content": content, "version": version, "pem": pem}
        allowed = [str(self.file.parent)]
        return install_bundle(self._section, body, state=self._state, allowed=allowed, **more)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A node with one bundle of anchors."""
    return Place(tmp_path)


def test_anchors_are_installed(place: Place) -> None:
    """A bundle of CA certificates comes into its file, each once."""
    one, two = root("One"), root("Two")
    done = place.install(one + "\n" + two.replace("\n", "\r\n") + one, 1)
    assert done == InstalledBundle("corp", 1, is_changed=True)
    assert place.file.read_text() == one + two


def test_revocation_lists_are_installed(tmp_path: Path) -> None:
    """A bundle of revocation lists comes into its file."""
    place, list_ = Place(tmp_path, content=CRLS), crl()
    place.install(list_, 1, "crls")
    assert place.file.read_text() == list_


@pytest.mark.parametrize(
    ("content", "pem"),
    [
        (ANCHORS, ""),
        (ANCHORS, "\n\n"),
        (ANCHORS, "anchors"),
        (ANCHORS, leaf()),
        (ANCHORS, crl()),
        (ANCHORS, root() + crl()),
        (ANCHORS, root() + "# a comment\n" + root("Two")),
        (ANCHORS, root() + authority.make_root("Key").key_pem().decode()),
        (ANCHORS, root()[:-40]),
        (ANCHORS, root().replace("BEGIN CERTIFICATE", "BEGIN TRUSTED CERTIFICATE")),
        (ANCHORS, block("CERTIFICATE", b"\x30\x03\x02\x01\x01")),
        (ANCHORS, block("CERTIFICATE", der_of(root()) + b"\0")),
        (ANCHORS, block("CERTIFICATE", der_of(root())[:-1])),
        (ANCHORS, block("CERTIFICATE", der_of(crl()))),
        (ANCHORS, root() + "\u200b"),
        (ANCHORS, root() + "\n" * (4 * 1024 * 1024)),
        (CRLS, root()),
        (CRLS, ""),
        (CRLS, block("X509 CRL", der_of(root()))),
        (CRLS, crl() + root()),
    ],
)
def test_bundle_that_is_something_else_is_refused(content: BundleContent, pem: str) -> None:
    """A block that isn't what it should be refuses the whole bundle."""
    with pytest.raises(BundleFault):
        parse_bundle(content, pem)


def test_refused_bundle_leaves_the_old_one(place: Place) -> None:
    """What was installed stays when the next one is bad."""
    good = root()
    place.install(good, 1)
    with pytest.raises(BundleFault):
        place.install(leaf(), 2)
    assert place.file.read_text() == good


def test_bundle_of_another_content_is_refused(place: Place) -> None:
    """The node's own configuration says what a bundle holds."""
    with pytest.raises(BundleFault, match="holds anchors"):
        place.install(crl(), 1, "crls")


def test_version_never_goes_back(place: Place) -> None:
    """An older version is refused, and the same one again changes nothing."""
    old, new = root("Old"), root("New")
    place.install(new, 7)
    with pytest.raises(BundleFault, match="version 6 of bundle 'corp' is older than 7"):
        place.install(old, 6)
    assert not place.install(new, 7).is_changed
    assert place.file.read_text() == new


def test_file_that_was_changed_is_put_right(place: Place) -> None:
    """A file that somebody else wrote is written again by the same version."""
    pem = root()
    place.install(pem, 7)
    place.file.write_text("spoilt")
    assert place.install(pem, 7).is_changed
    assert place.file.read_text() == pem


def test_file_outside_the_allowed_folders_is_refused(tmp_path: Path) -> None:
    """A bundle lies where the node allows it."""
    place = Place(tmp_path)
    section = BundleSection(name="corp", file=str(tmp_path / "elsewhere.pem"))
    body = {"bundle": "corp", "content": "anchors", "version": 1, "pem": root()}
    with pytest.raises(BundleFault, match="none of the folders"):
        install_bundle(
            section, body, state=str(tmp_path / "state"), allowed=[str(place.file.parent)]
        )
    assert not (tmp_path / "elsewhere.pem").exists()


def test_reload_that_fails_puts_the_old_bundle_back(tmp_path: Path) -> None:
    """A server that can't take the new bundle gets the old one again, or none as before."""
    failing = Place(tmp_path, reload=ReloadSection(command=("/bin/false",)))
    with pytest.raises(BundleFault, match="the old one was put back"):
        failing.install(root("New"), 1)
    assert not failing.file.exists()
    old = root("Old")
    Place(tmp_path).install(old, 1)
    with pytest.raises(BundleFault, match="the old one was put back"):
        failing.install(root("New"), 2)
    assert failing.file.read_text() == old


def test_bundle_that_was_cut_off_before_its_reload_is_reloaded(tmp_path: Path) -> None:
    """The file is there and the note is not: the agent was killed between the two."""
    said = tmp_path / "reloaded"
    touch = ReloadSection(command=("/usr/bin/touch", str(said)))
    place, pem = Place(tmp_path, reload=touch), root()
    place.file.write_text(pem)
    assert place.install(pem, 1).is_changed
    assert said.exists()
    said.unlink()
    assert not place.install(pem, 1).is_changed
    assert not said.exists()


def test_bundle_that_the_disk_refuses_may_be_installed_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is at fault itself never will."""
    good = root()
    place.install(good, 1)
    write = os.write

    def full(descriptor: int, octets: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(place.file.parent)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BundleFault, match="no space left") as raised:
        place.install(root("New"), 2)
    assert not raised.value.is_final
    assert place.file.read_text() == good
    with pytest.raises(BundleFault) as raised:
        place.install(leaf(), 2)
    assert raised.value.is_final
    monkeypatch.undo()
    assert place.install(root("New"), 2).is_changed


def store_in(tmp_path: Path, status: int = 0) -> SystemStore:
    """Return a stand-in for the system's store that notes how often it is rebuilt."""
    folder, program = tmp_path / "store", tmp_path / "update"
    folder.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/rebuilt\nexit {status}\n")
    program.chmod(0o755)
    return SystemStore(str(folder), (str(program),))


def test_system_store_is_left_alone_unless_told(place: Place, tmp_path: Path) -> None:
    """Without ``system`` nothing but the bundle's own file is written."""
    store = store_in(tmp_path)
    place.install(root(), 1, store=store)
    assert os.listdir(store.folder) == []
    assert not (tmp_path / "rebuilt").exists()


def test_system_store_gets_each_anchor_where_told(tmp_path: Path) -> None:
    """With ``system`` each anchor is a file of its own, and those that are gone go."""
    place, store = Place(tmp_path, system=True), store_in(tmp_path)
    (Path(store.folder) / "other.crt").write_text("not ours")
    one, two, three = root("One"), root("Two"), root("Three")
    place.install(one + two, 1, store=store)
    place.install(two + three, 2, store=store)
    place.install(two + three, 2, store=store)
    found = {path.read_text() for path in Path(store.folder).iterdir()}
    assert found == {"not ours", two, three}
    assert (tmp_path / "rebuilt").read_text() == "\n\n"


def test_system_store_that_is_not_rebuilt_is_told_and_tried_again(tmp_path: Path) -> None:
    """A bundle isn't counted as installed until the system has taken it."""
    place, pem = Place(tmp_path, system=True), root()
    with pytest.raises(BundleFault, match="update ended with status 1"):
        place.install(pem, 1, store=store_in(tmp_path, status=1))
    assert place.install(pem, 1, store=store_in(tmp_path)).is_changed


@pytest.mark.parametrize("has", ["debian", "redhat", "debian redhat"])
def test_system_store_is_the_one_that_is_here(tmp_path: Path, has: str) -> None:
    """Where both are, the first: a folder alone, or a program alone, is no store."""
    stores = {}
    for family in ("debian", "redhat"):
        (tmp_path / family).mkdir()
        stores[family] = store_in(tmp_path / family)
        if family not in has.split():
            Path(stores[family].command[0]).unlink()
    assert find_store(tuple(stores.values())) == stores[has.split()[0]]
    for store in stores.values():
        Path(store.folder).rmdir()
    with pytest.raises(BundleFault, match="no store of the system's") as raised:
        find_store(tuple(stores.values()))
    assert not raised.value.is_final
