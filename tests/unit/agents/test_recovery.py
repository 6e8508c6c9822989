"""What installs that were cut off have left is cleared away, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agents.config import CertificateSection, Layout
from agents.recovery import clear_previous, recover
from tests.fakes.node_authority import NOW, Node, craft_here


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node."""
    return Node(tmp_path)


def clear(node: Node, *sections: CertificateSection) -> list[str]:
    """Recover as an agent does at its start."""
    return recover(sections, allowed=node.allowed, state_dir=str(node.state), now=NOW)


def debris(folder: Path) -> list[Path]:
    """Leave what a killed install leaves."""
    made = [folder / ".penstock-0123456789abcdef", folder / "..penstock-00112233"]
    made[0].mkdir()
    (made[0] / "privkey.pem").write_bytes(b"half a k")
    made[1].symlink_to("nowhere")
    made.append(folder / ".penstock-file")
    made[2].write_bytes(b"half")
    return made


@pytest.mark.parametrize("layout", [Layout.PEM, Layout.KUBERNETES, Layout.COMBINED], ids=str)
def test_debris_goes_and_the_pair_stays(node: Node, layout: Layout) -> None:
    """Also one that waits to be taken back, and everything that is not ours."""
    section = node.section(layout)
    verified, key = node.obtain(section)
    node.install(section, verified, key).settle()
    installation = node.install(section, *node.obtain(section))
    folder = node.tls / "www"
    (folder / "other.txt").write_bytes(b"somebody's")
    (folder / ".hidden").write_bytes(b"somebody's")
    before = sorted(str(one) for one in folder.rglob("*"))
    left = debris(folder)
    assert clear(node, section) == []
    assert not any(one.is_symlink() or one.exists() for one in left)
    assert sorted(str(one) for one in folder.rglob("*")) == before
    installation.undo()
    assert clear(node, section) == []


def test_files_that_share_a_folder_are_each_known(node: Node) -> None:
    """One certificate's old file is not another's debris."""
    sections = [
        node.section(Layout.COMBINED, name=name, directory=str(node.tls / "all"))
        for name in ("a", "b")
    ]
    for section in sections:
        node.install(section, *node.obtain(section)).settle()
    installations = [node.install(one, *node.obtain(one)) for one in sections]
    assert clear(node, *sections) == []
    for installation in installations:
        installation.undo()


def test_a_journal_that_cannot_be_read_keeps_all(node: Node) -> None:
    """Unsure what is debris, nothing is taken away; the next install goes through."""
    section = node.section()
    node.install(section, *node.obtain(section)).settle()
    node.install(section, *node.obtain(section))
    before = sorted(str(one) for one in node.tls.rglob("*"))
    journal = node.state / "installs" / "www.json"
    journal.write_text('{"names": ["../../etc/passwd"], "new": "../x"}', encoding="ascii")
    clear(node, section)
    assert sorted(str(one) for one in node.tls.rglob("*")) == before
    node.install(section, *node.obtain(section)).settle()


def test_one_folder_that_is_wrong_stops_no_other(node: Node) -> None:
    """It is told, and the others are cleared; what was never installed is no fault."""
    good, bad, new = node.section(name="good"), node.section(name="bad"), node.section(name="new")
    node.install(good, *node.obtain(good)).settle()
    (node.tls / "bad").symlink_to("good")
    left = debris(node.tls / "good")
    told = clear(node, bad, good, new)
    assert len(told) == 1
    assert "symlink" in told[0]
    assert not left[0].exists()


def test_previous_ones_go_when_their_time_is_over(node: Node) -> None:
    """By the time in their names; a name that tells none is not ours."""
    folder = node.tls / "www"
    folder.mkdir()
    until = int(NOW.timestamp())
    over, kept = folder / f".previous-{until - 1}-x", folder / f".previous-{until + 1}-x.pem"
    other = folder / ".previous-holiday"
    for one in (kept, other):
        one.write_bytes(b"")
    over.mkdir()
    section = node.section()
    assert clear_previous([section], allowed=node.allowed, now=NOW) == []
    assert sorted(folder.iterdir()) == sorted([kept, other])
    later = NOW + timedelta(seconds=2)
    assert clear_previous([section], allowed=node.allowed, now=later) == []
    assert list(folder.iterdir()) == [other]
