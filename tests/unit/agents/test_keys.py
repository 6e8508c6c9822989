"""Keys of certificates: made, kept, found, forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509

from agents.config import KeyKind, KeySection
from agents.keys import (
    MAX_WAITING,
    KeyFault,
    MadeCsr,
    find_key,
    forget_key,
    key_folder,
    make_csr,
    serving_key,
    settle_keys,
)
from tests.fakes.node_authority import Node, craft_here


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node."""
    return Node(tmp_path)


def asked(node: Node, *, is_new_key: bool = True, kind: KeyKind = KeyKind.EC_P256) -> MadeCsr:
    """Make a CSR."""
    section = node.section(key=KeySection(kind=kind))
    state = str(node.state)
    return make_csr(section, names=section.names, is_new_key=is_new_key, state_dir=state)


def settled(node: Node, made: MadeCsr) -> None:
    """Its certificate is installed and seen."""
    settle_keys("www", made.spki_sha256, str(node.state))


def test_a_csr_is_for_the_names_and_a_new_key(node: Node) -> None:
    """The key lies under its own digest, for its owner alone, in a folder for its owner alone."""
    made = asked(node)
    csr = x509.load_der_x509_csr(made.csr_der)
    assert csr.is_signature_valid
    path = Path(made.key_reference)
    assert path.name == f"{made.spki_sha256}.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert find_key("www", made.spki_sha256, str(node.state)) == made.key_reference
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_new_key_waits_beside_the_one_that_serves(node: Node) -> None:
    """Until its certificate is settled the old one is the one that serves."""
    one = asked(node)
    settled(node, one)
    two = asked(node)
    assert serving_key("www", str(node.state)) == one.key_reference
    assert Path(one.key_reference).exists()
    settled(node, two)
    assert serving_key("www", str(node.state)) == two.key_reference
    assert not Path(one.key_reference).exists()


def test_the_key_that_serves_is_asked_for_again(node: Node) -> None:
    """Where policy keeps keys; where none serves yet a new one is made."""
    one = asked(node, is_new_key=False)
    settled(node, one)
    assert asked(node, is_new_key=False).spki_sha256 == one.spki_sha256
    assert asked(node, is_new_key=True).spki_sha256 != one.spki_sha256


def test_a_key_of_another_kind_is_not_used_again(node: Node) -> None:
    """The configuration has changed its mind, so a new key is made."""
    settled(node, asked(node))
    made = asked(node, is_new_key=False, kind=KeyKind.EC_P384)
    csr = x509.load_der_x509_csr(made.csr_der)
    assert csr.public_key().curve.name == "secp384r1"  # type: ignore[union-attr]


def test_the_broker_does_not_choose_the_kind(node: Node) -> None:
    """The node's own configuration does; the same kind passes."""
    section, state = node.section(), str(node.state)
    names = section.names
    with pytest.raises(KeyFault, match="the node has ec-p256"):
        make_csr(section, names=names, is_new_key=True, state_dir=state, kind="rsa-2048")
    assert make_csr(section, names=names, is_new_key=True, state_dir=state, kind="ec-p256")


def test_keys_that_wait_fill_no_disk(node: Node) -> None:
    """However often it is asked, only the newest few wait, and the serving one stays."""
    serving = asked(node)
    settled(node, serving)
    made = [asked(node) for _ in range(MAX_WAITING + 3)]
    found = {one for one in os.listdir(key_folder("www", str(node.state))) if len(one) > 60}
    assert Path(serving.key_reference).name in found
    assert {Path(one.key_reference).name for one in made[-MAX_WAITING:]} <= found
    assert len(found) == MAX_WAITING + 1


@pytest.mark.parametrize("spki", ["0" * 64, "../../../etc/passwd", "", "F" * 64])
def test_a_key_that_is_not_there(node: Node, spki: str) -> None:
    """A certificate for it is another's, whatever it is called."""
    asked(node)
    with pytest.raises(KeyFault, match="has no key"):
        find_key("www", spki, str(node.state))


def test_a_key_that_waits_is_forgotten(node: Node) -> None:
    """The one that serves is not, and no file elsewhere is."""
    serving, waiting = asked(node), asked(node)
    settle_keys("www", serving.spki_sha256, str(node.state))
    other = node.home / "other.pem"
    other.write_bytes(b"x")
    for reference in (waiting.key_reference, serving.key_reference, str(other)):
        forget_key("www", reference, str(node.state))
    forget_key("www", waiting.key_reference, str(node.state))
    assert not Path(waiting.key_reference).exists()
    assert Path(serving.key_reference).exists()
    assert other.exists()


def test_what_was_cut_off_is_made_anew(node: Node) -> None:
    """A key half made is no key."""
    folder = Path(key_folder("www", str(node.state)))
    folder.mkdir(parents=True)
    (folder / "making.pem").write_bytes(b"-----BEGIN")
    (folder / "making.pem.new").write_bytes(b"-----BEGIN")
    made = asked(node)
    assert [one.name for one in folder.iterdir()] == [Path(made.key_reference).name]


def test_a_state_that_cannot_be_written_is_a_fault(node: Node) -> None:
    """It says where."""
    (node.state / "keys").write_bytes(b"a file where a folder should be")
    with pytest.raises(KeyFault, match="keys/www"):
        asked(node)
