"""Keys on a token that serve no more: destroyed in time, and never one that anything names."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents import leaving
from agents.child import ChildFault
from agents.keys import LEFT, find_key, settle_keys
from agents.leaving import destroy_left
from tests.fakes.node_authority import NOW, Node

OVER = int(NOW.timestamp()) - 60
"""A second that has passed."""


def uri(number: int, query: str = "pin-source=file:/pin") -> str:
    """Return the URI of a key on the token."""
    return f"pkcs11:token=web;id=%0{number};object=www?{query}"


def spki(number: int) -> str:
    """Return the digest of its public half."""
    return f"{number}" * 64


class FakeToken:
    """A token that destroys what it is told to, unless it is out of order."""

    def __init__(self) -> None:
        self.keys = {uri(number) for number in range(1, 6)}
        self.is_out_of_order = False

    def run(self, work: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the child would do."""
        assert work["do"] == "forget-key"
        if self.is_out_of_order:
            raise ChildFault("the token refused C_Login with 0x30")
        self.keys.discard(str(work["key"]))
        return {}


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> FakeToken:
    """A token with five keys."""
    made = FakeToken()
    monkeypatch.setattr(leaving, "run_child", made.run)
    return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node."""
    return Node(tmp_path)


def keep(node: Node, name: str, text: str, certificate: str = "www") -> Path:
    """Write a file of URIs into the folder of a certificate's keys."""
    folder = node.state / "keys" / certificate
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"{text}\n", encoding="ascii")
    return path


def left(node: Node, number: int, until: int = OVER) -> Path:
    """Have a key left service."""
    return keep(node, f"{LEFT}{until}-{spki(number)}.uri", uri(number))


def destroy(node: Node, after: timedelta = timedelta(0)) -> list[str]:
    """Destroy what is over then."""
    sections = (node.section(), node.section(name="mail"))
    return destroy_left(sections, allowed=node.allowed, state_dir=str(node.state), now=NOW + after)


def in_place(node: Node, folder: str, number: int) -> Path:
    """Have a pair lie in its place, or beside it, that names a key."""
    path = node.tls / "www" / folder
    path.mkdir(parents=True)
    (path / "privkey.uri").write_text(f"{uri(number)}\n", encoding="ascii")
    return path


def test_a_key_whose_time_is_over_is_destroyed_and_the_others_are_not(
    node: Node, token: FakeToken
) -> None:
    """Those that serve, that wait and that are kept for longer stay."""
    over, later = left(node, 1), left(node, 2, int(NOW.timestamp()) + 3_600)
    keep(node, f"{spki(3)}.uri", uri(3))
    assert destroy(node) == []
    assert token.keys == {uri(number) for number in (2, 3, 4, 5)}
    assert (over.exists(), later.exists()) == (False, True)
    assert destroy(node, timedelta(hours=2)) == []
    assert token.keys == {uri(number) for number in (3, 4, 5)}


def test_a_key_that_a_pair_names_is_not_destroyed(node: Node, token: FakeToken) -> None:
    """The present pair, one before it, and one that is being made; once they are gone, it is."""
    for number in (1, 2, 3):
        left(node, number)
    places = [
        in_place(node, ".penstock-0011", 1),
        in_place(node, ".previous-99999999999-0022", 2),
        in_place(node, "..penstock-0033", 3),
    ]
    (node.tls / "www" / "current").symlink_to(".penstock-0011")
    (node.tls / "www" / "privkey.uri").symlink_to("current/privkey.uri")
    assert destroy(node) == []
    assert len(token.keys) == 5
    (places[1] / "privkey.uri").unlink()
    assert destroy(node) == []
    assert token.keys == {uri(number) for number in (1, 3, 4, 5)}


def test_a_key_of_another_certificate_is_not_destroyed(node: Node, token: FakeToken) -> None:
    """Also where it is reached by another path to the PIN there."""
    left(node, 1)
    other = keep(node, f"{spki(1)}.uri", uri(1, "pin-source=file:/elsewhere"), "mail")
    assert destroy(node) == []
    assert uri(1) in token.keys
    other.unlink()
    destroy(node)
    assert uri(1) not in token.keys


def test_a_token_that_fails_is_told_of_and_asked_again(node: Node, token: FakeToken) -> None:
    """What is written down stays until the key is gone."""
    path = left(node, 1)
    token.is_out_of_order = True
    (fault,) = destroy(node)
    assert "certificate 'www'" in fault
    assert "C_Login" in fault
    assert path.exists()
    token.is_out_of_order = False
    assert destroy(node) == []
    assert not path.exists()
    assert uri(1) not in token.keys


def test_nothing_is_destroyed_while_it_is_not_known_what_is_in_use(
    node: Node, token: FakeToken
) -> None:
    """A link on the way to the pair could hide anything."""
    left(node, 1)
    (node.tls / "elsewhere").mkdir()
    (node.tls / "www").symlink_to("elsewhere")
    (fault,) = destroy(node)
    assert "not known which are in use" in fault
    assert uri(1) in token.keys
    (node.tls / "www").unlink()
    assert destroy(node) == []
    assert uri(1) not in token.keys


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_nothing_is_destroyed_while_a_folder_cannot_be_opened(
    node: Node, token: FakeToken, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It may be the one that names the key; a file or a link in its place names none."""
    left(node, 1)
    in_place(node, ".previous-99999999999-0011", 1)

    def refuse(parent: int, name: str) -> int:
        raise OSError(code, os.strerror(code), name)

    with monkeypatch.context() as patched:
        patched.setattr(leaving, "child_folder", refuse)
        (fault,) = destroy(node)
    assert "not known which are in use" in fault
    assert f"'.previous-99999999999-0011' cannot be opened: {os.strerror(code)}" in fault
    assert uri(1) in token.keys
    (node.tls / "www" / ".previous-99999999999-0011").rename(node.home / "away")
    (node.tls / "www" / "notes").touch()
    (node.tls / "www" / "current").symlink_to("nowhere")
    assert destroy(node) == []
    assert uri(1) not in token.keys


def test_nothing_is_destroyed_while_a_volume_is_away(node: Node, token: FakeToken) -> None:
    """Not even the folder above is there; with it, a certificate may have none of its own yet."""
    left(node, 1)
    node.tls.rename(node.home / "away")
    (fault,) = destroy(node)
    assert f"folder {node.tls} is not there" in fault
    node.tls.symlink_to("nowhere")
    (fault,) = destroy(node)
    assert f"folder {node.tls} is not there" in fault
    assert uri(1) in token.keys
    node.tls.unlink()
    node.tls.mkdir()
    assert destroy(node) == []
    assert uri(1) not in token.keys


def test_nothing_is_destroyed_while_a_place_cannot_be_looked_at(
    node: Node, token: FakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a share whose server is away."""
    left(node, 1)
    look = os.lstat

    def refuse(path: str) -> os.stat_result:
        if path == str(node.tls / "www"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return look(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", refuse)
        (fault,) = destroy(node)
    assert os.strerror(errno.ESTALE) in fault
    assert uri(1) in token.keys
    assert destroy(node) == []
    assert uri(1) not in token.keys


def test_settling_writes_down_what_left_service(node: Node) -> None:
    """The key's file goes in one rename, so that a kill loses no key."""
    one = keep(node, f"{spki(1)}.uri", uri(1))
    two = keep(node, f"{spki(2)}.uri", uri(2))

    os.utime(one, (1, 1))
    settle_keys("www", spki(2), str(node.state), until=4_711)
    assert sorted(path.name for path in two.parent.iterdir()) == sorted(
        ["serving", f"{LEFT}4711-{spki(1)}.uri", two.name]
    )


def test_a_key_that_was_given_up_and_then_served_is_kept_like_any_other(node: Node) -> None:
    """Others were asked for while its certificate was on its way: it was the oldest to wait."""
    given_up = left(node, 1, 0)
    settle_keys("www", spki(1), str(node.state), until=0)
    assert not given_up.exists()
    assert find_key("www", spki(1), str(node.state)) == uri(1)
    keep(node, f"{spki(2)}.uri", uri(2))
    os.utime(given_up.parent / f"{spki(1)}.uri", (1, 1))
    settle_keys("www", spki(2), str(node.state), until=4_711)
    assert (given_up.parent / f"{LEFT}4711-{spki(1)}.uri").exists()


def test_without_keys_there_is_nothing_to_do(node: Node, token: FakeToken) -> None:
    """The usual case."""
    assert destroy(node) == []
    assert len(token.keys) == 5
