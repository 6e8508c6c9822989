"""A pair is put in its place in one step and can be taken back exactly."""

from __future__ import annotations

import dataclasses
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from agents.config import CertificateSection, KeySection, Layout
from agents.install import Installation, InstallFault, unfinished
from agents.keys import serving_key
from agents.recovery import clear_previous, recover
from tests.fakes.node_authority import NOW, Node, craft_here

LAYOUTS = tuple(Layout)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node."""
    return Node(tmp_path)


def put(node: Node, section: CertificateSection, **more: object) -> Installation:
    """Obtain a certificate and install it."""
    verified, key = node.obtain(section)
    return node.install(section, verified, key, **more)


def seen(section: CertificateSection) -> dict[str, tuple[bytes, int, int]]:
    """Return what is read under every stable name: octets, mode, owner."""
    assert section.files is not None
    folder = Path(section.files.directory)
    found = {}
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and "current" not in path.parts:
            status = path.stat()
            found[path.name] = (path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_undo_puts_the_old_pair_back_exactly(node: Node, layout: Layout) -> None:
    """Octets, modes and owners are those of before, however often it is undone."""
    section = node.section(layout, mode=0o640)
    put(node, section).settle()
    before = seen(section)
    assert before
    installation = put(node, section)
    assert seen(section) != before
    installation.undo()
    installation.undo()
    assert seen(section) == before
    assert unfinished(section, allowed=node.allowed, state_dir=str(node.state)) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_undoing_the_first_leaves_nothing(node: Node, layout: Layout) -> None:
    """Where there was no pair there is none again."""
    section = node.section(layout)
    put(node, section).undo()
    assert seen(section) == {}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_modes_are_as_configured(node: Node, layout: Layout) -> None:
    """What holds a key has the mode of the configuration, whatever the umask; certificates can be
    read by everybody."""
    section = node.section(layout, mode=0o440)
    was = os.umask(0o027)
    try:
        put(node, section)
    finally:
        os.umask(was)
    secret = {"privkey.pem", "tls.key", "www.pem", "www.p12"}
    for name, (_, mode, _) in seen(section).items():
        assert mode == (0o440 if name in secret else 0o444), name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_owners_are_as_configured_or_kept(node: Node, layout: Layout) -> None:
    """A number that the host has no name for; and without a word, the owner that was there."""
    put(node, node.section(layout, owner="23456", group="34567")).settle()
    section = node.section(layout)
    put(node, section).settle()
    owners = {uid for _, _, uid in seen(section).values()}
    assert owners == {23456}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_broker_and_the_node_both_say_how_long_a_key_is_kept(
    node: Node, layout: Layout
) -> None:
    """The longer stands; then it is taken away, and what is served stays."""
    keep = timedelta(days=2)
    section = node.section(layout, key=KeySection(keep_previous=keep))
    put(node, section).settle()
    put(node, section, keep_previous=timedelta(days=1)).settle()
    assert section.files is not None
    folder = Path(section.files.directory)
    place = folder / "live" / "www" if layout is Layout.CERTBOT else folder

    def kept() -> list[str]:
        return [one for one in os.listdir(place) if one.lstrip(".").startswith("previous-")]

    assert len(kept()) == 1
    served = seen(section)
    soon, later = NOW + timedelta(days=1, hours=23), NOW + timedelta(days=2, hours=1)
    assert clear_previous([section], allowed=node.allowed, now=soon) == []
    assert len(kept()) == 1
    assert clear_previous([section], allowed=node.allowed, now=later) == []
    assert kept() == []
    assert seen(section) == served


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_previous_key_is_not_kept_unasked(node: Node, layout: Layout) -> None:
    """Once the new pair is settled, nothing of the old one is left anywhere."""
    section = node.section(layout)
    put(node, section).settle()
    old = (node.state / "keys" / "www" / "serving").read_text().strip()
    (old_key,) = [one.read_bytes() for one in node.state.rglob(f"{old}.pem")]
    put(node, section).settle()
    recover([section], allowed=node.allowed, state_dir=str(node.state), now=NOW)
    for path in node.home.rglob("*"):
        if path.is_file():
            assert old_key not in path.read_bytes(), path


def test_settling_says_which_key_serves(node: Node) -> None:
    """It is the one that is asked for again where policy keeps keys."""
    section = node.section()
    verified, key = node.obtain(section)
    installation = node.install(section, verified, key)
    assert serving_key("www", str(node.state)) is None
    installation.settle()
    installation.settle()
    assert serving_key("www", str(node.state)) == key


def test_what_was_not_settled_is_found_after_a_restart(node: Node) -> None:
    """And can still be undone or settled from there."""
    section = node.section()
    put(node, section).settle()
    before = seen(section)
    put(node, section)
    again = unfinished(section, allowed=node.allowed, state_dir=str(node.state))
    assert again is not None
    again.undo()
    assert seen(section) == before


def test_one_that_was_never_settled_is_not_gone_back_to(node: Node) -> None:
    """Of two in a row that were not seen, undoing the second brings back what was last good."""
    for layout in (Layout.PEM, Layout.COMBINED):
        section = node.section(layout, name=f"x{layout}")
        put(node, section).settle()
        good = seen(section)
        put(node, section)
        put(node, section).undo()
        assert seen(section) == good


@pytest.mark.parametrize("layout", [Layout.PEM, Layout.KUBERNETES, Layout.CERTBOT], ids=str)
def test_files_that_were_there_become_links_to_the_same(node: Node, layout: Layout) -> None:
    """A pair that somebody else laid there is switched like ours, and comes back by undo."""
    section = node.section(layout)
    assert section.files is not None
    first = put(node, section)
    folder = Path(section.files.directory)
    place = folder / "live" / "www" if layout is Layout.CERTBOT else folder
    plain = {name: octets for name, (octets, _, _) in seen(section).items()}
    first.undo()
    for name, octets in plain.items():
        (place / name).write_bytes(octets)
        (place / name).chmod(0o644)
    before = seen(section)
    installation = put(node, section)
    assert all((place / name).is_symlink() for name in plain)
    installation.undo()
    assert seen(section) == before


def test_a_pkcs12_opens_with_the_password_of_its_file(node: Node) -> None:
    """The password is a reference; what it names opens the file."""
    section = node.section(Layout.PKCS12)
    verified, key = node.obtain(section)
    node.install(section, verified, key)
    octets, mode, _ = seen(section)["www.p12"]
    loaded = pkcs12.load_pkcs12(octets, b"open sesame")
    assert loaded.key is not None
    assert loaded.cert is not None
    assert len(loaded.additional_certs) == 1
    assert mode == 0o600
    assert list(node.state.glob("*.p12")) == []


def test_a_password_that_cannot_be_read_changes_nothing(node: Node) -> None:
    """The fault names the reference, and the old file stays."""
    section = node.section(Layout.PKCS12)
    put(node, section).settle()
    before = seen(section)
    (node.home / "password").unlink()
    with pytest.raises(InstallFault, match="password"):
        put(node, section)
    assert seen(section) == before


def test_what_keeps_a_pair_from_its_place(node: Node) -> None:
    """An unknown owner, a folder that is not allowed, a key that is gone: each says so."""
    verified, key = node.obtain(node.section())
    for section, said in (
        (node.section(owner="no-such-user-here"), "not known"),
        (node.section(directory="/etc/other"), "in none of the folders"),
    ):
        with pytest.raises(InstallFault, match=said):
            node.install(section, verified, key)
    os.unlink(key)
    with pytest.raises(InstallFault, match="No such file"):
        node.install(node.section(), verified, key)
    assert list(node.tls.iterdir()) == []


def test_a_section_of_a_driver_has_no_files(node: Node) -> None:
    """It is not for here."""
    verified, key = node.obtain(node.section())
    section = dataclasses.replace(node.section(), files=None)
    with pytest.raises(InstallFault, match="driver"):
        node.install(section, verified, key)
    assert unfinished(section, allowed=node.allowed, state_dir=str(node.state)) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_label_is_taken_over(node: Node, layout: Layout) -> None:
    """What has an SELinux label has the same one after the next install."""
    section = node.section(layout)
    put(node, section).settle()
    assert section.files is not None
    label = b"system_u:object_r:cert_t:s0\0"
    files = [one for one in Path(section.files.directory).rglob("*") if one.is_symlink()]
    files = [one for one in files if one.is_file()] or list(node.tls.rglob("www.*"))
    assert files
    try:
        for one in files:
            os.setxattr(one, "security.selinux", label)
    except OSError:
        pytest.skip("labels cannot be set here")
    put(node, section)
    assert {os.getxattr(one, "security.selinux") for one in files} == {label}
