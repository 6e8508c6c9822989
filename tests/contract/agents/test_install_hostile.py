"""Installing where somebody else can write too: nothing outside of what is allowed ever changes."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.config import Layout
from agents.install import InstallFault
from tests.contract.agents.installing import FILES, Scene, given, served
from tests.fakes.node_authority import Node

pytestmark = pytest.mark.peers

ROUNDS = 500
"""How many installs a folder is swapped under."""

SECRET = b"the victim's own\n"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file in it that must come out as it went in."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("secret", "www.pem", "fullchain.pem", "privkey.pem", "current"):
        (folder / name).write_bytes(SECRET)
        (folder / name).chmod(0o640)
    before = _picture(folder)
    yield folder
    assert _picture(folder) == before


def _picture(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    status = {one: one.lstat() for one in folder.iterdir()}
    return {
        one.name: (one.read_bytes(), status[one].st_mode, status[one].st_uid, status[one].st_ino)
        for one in sorted(folder.iterdir())
    }


def try_to_install(scene: Scene) -> str | None:
    """Install; return why not, or None."""
    try:
        scene.node.install(scene.section, scene.verified, scene.key)
    except InstallFault as fault:
        return fault.reason
    return None


def in_the_way(name: str) -> Callable[[Path, Path], None]:
    """Return how something is put in the way of a file."""

    def symlink(place: Path, victim: Path) -> None:
        place.symlink_to(victim / "secret")

    def dangling(place: Path, victim: Path) -> None:
        place.symlink_to(victim / "absent")

    def folder(place: Path, victim: Path) -> None:
        place.mkdir()

    def fifo(place: Path, victim: Path) -> None:
        os.mkfifo(place)

    def unix_socket(place: Path, victim: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            was = Path.cwd()
            os.chdir(place.parent)
            try:
                made.bind(place.name)
            finally:
                os.chdir(was)

    def device(place: Path, victim: Path) -> None:
        if os.geteuid():
            pytest.skip("only root makes devices")
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))

    return {one.__name__: one for one in (symlink, dangling, folder, fifo, unix_socket, device)}[
        name
    ]


@pytest.mark.parametrize("what", ["symlink", "dangling", "folder", "fifo", "unix_socket", "device"])
@pytest.mark.parametrize("layout", [Layout.PEM, Layout.COMBINED], ids=str)
def test_what_is_in_the_way_of_a_key_is_refused(
    tmp_path: Path, victim: Path, layout: Layout, what: str
) -> None:
    """It is refused and left alone; without it the same install goes through."""
    scene = given(tmp_path, layout, "nothing")
    scene.folder.mkdir()
    place = scene.folder / FILES[layout][1]
    in_the_way(what)(place, victim)
    mode = place.lstat().st_mode
    reason = try_to_install(scene)
    assert reason is not None
    assert place.name in reason
    assert place.lstat().st_mode == mode
    if stat.S_ISDIR(mode):
        place.rmdir()
    else:
        place.unlink()
    assert try_to_install(scene) is None
    assert scene.served() == scene.verified.fingerprint


@pytest.mark.parametrize("layout", [Layout.PEM, Layout.COMBINED], ids=str)
def test_a_hard_link_to_the_victim(tmp_path: Path, victim: Path, layout: Layout) -> None:
    """A file with another name elsewhere is never written into, and never copied from."""
    scene = given(tmp_path, layout, "nothing")
    scene.folder.mkdir()
    place = scene.folder / FILES[layout][1]
    os.link(victim / "secret", place)
    reason = try_to_install(scene)
    if layout is Layout.PEM:
        assert reason is not None
        assert "names" in reason
    else:
        assert reason is None
    for path in scene.folder.rglob("*"):
        if path.is_file() and path.stat().st_ino != (victim / "secret").stat().st_ino:
            assert SECRET not in path.read_bytes()


def test_a_link_that_is_not_ours_is_not_switched(tmp_path: Path, victim: Path) -> None:
    """The one link that leads elsewhere is refused."""
    scene = given(tmp_path, Layout.PEM, "ours")
    (scene.folder / "current").unlink()
    (scene.folder / "current").symlink_to(victim)
    reason = try_to_install(scene)
    assert reason is not None
    assert "did not make" in reason


@pytest.mark.parametrize(
    "directory",
    ["/etc", "{tls}-other/www", "{tls}/../victim", "{tls}/./www", "{tls}/link/www", "{tls}/file/x"],
)
def test_a_folder_that_is_not_allowed(tmp_path: Path, victim: Path, directory: str) -> None:
    """Outside, beside, through dots, a symlink or a file: each is refused, and nothing is made."""
    node = Node(tmp_path)
    (node.tls / "link").symlink_to(victim)
    (node.tls / "file").write_bytes(b"")
    section = node.section(directory=directory.format(tls=node.tls))
    verified, key = node.obtain(section)
    before = sorted(str(one) for one in tmp_path.rglob("*") if node.state not in one.parents)
    with pytest.raises(InstallFault):
        node.install(section, verified, key)
    after = sorted(str(one) for one in tmp_path.rglob("*") if node.state not in one.parents)
    assert after == before


SWAPPING = """
import os, shutil, sys
folder, victim, *names = sys.argv[1:]
aside = folder + ".aside"

def do(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass

print("swapping", flush=True)
while True:
    if not names:
        do(os.rename, folder, aside)
        do(os.symlink, victim, folder)
        do(os.unlink, folder)
        do(os.rename, aside, folder)
        shutil.rmtree(aside, ignore_errors=True)  # where the agent has made the folder anew
    for name in names:
        do(os.symlink, victim + "/" + name, folder + "/.evil")
        do(os.rename, folder + "/.evil", folder + "/" + name)
        do(os.unlink, folder + "/" + name)
"""
"""Swaps a folder for a link to the victim's, or names in it for links to the victim's files."""


@pytest.mark.parametrize("what", ["folder", "names"])
@pytest.mark.parametrize("layout", [Layout.PEM, Layout.COMBINED], ids=str)
def test_a_folder_that_is_swapped_all_the_time(
    tmp_path: Path, victim: Path, layout: Layout, what: str
) -> None:
    """Through five hundred installs the victim's files stay what they were, whoever wins."""
    scene = given(tmp_path, layout, "ours")
    names = []
    if what == "names":
        names = ["current", *FILES[layout]] if layout is Layout.PEM else ["www.pem"]
    arguments = [str(scene.folder), str(victim), *names]
    command = [sys.executable, "-I", "-c", SWAPPING, *arguments]
    swapper = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        assert swapper.stdout.readline()
        outcomes = [try_to_install(scene) for _ in range(ROUNDS)]
        assert swapper.poll() is None, "the swapper has given up"
    finally:
        swapper.kill()
        swapper.communicate()
    assert any(outcomes), "the swapper never came in between"
    assert None in outcomes or what == "names", "the agent never came through"
    for folder in (scene.folder, Path(f"{scene.folder}.aside")):
        for path in folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else ():
            if path.is_file() and not path.is_symlink():
                assert SECRET not in path.read_bytes()


def test_left_alone_the_same_installs_succeed(tmp_path: Path, victim: Path) -> None:
    """Without the swapper none is refused."""
    scene = given(tmp_path, Layout.PEM, "ours")
    assert [try_to_install(scene) for _ in range(50)] == [None] * 50
    assert served(scene.folder, scene.layout) == scene.verified.fingerprint
