"""What both images are: small, for nobody in particular, and the same each time they are built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import agents
from tests.kubernetes.images import (
    PYTHON_OF_BASE,
    REPOSITORY,
    Built,
    ImageStore,
    copy_sources,
)
from tests.kubernetes.programs import PYTHON_TREE, program, tree_archive
from tests.kubernetes.report import Report

AGENT_BYTES = 60 * 1024 * 1024
"""Most that the agent's image may have above its Python base."""

BROKER_BYTES = 200 * 1024 * 1024
"""The same for the broker's; 152 MiB measured, of which 50 are the language of expressions."""


def description(archive: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration of an archived image and the names of its layers."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            member = tar.extractfile(name)
            assert member is not None
            return json.load(member)

        (manifest,) = read("manifest.json")
        return read(manifest["Config"]), manifest["Layers"]


def layers(archive: Path) -> list[str]:
    """Return the digests of an image's layers, the lowest first."""
    digests: list[str] = description(archive)[0]["rootfs"]["diff_ids"]
    return digests


def own_files(built: Built) -> list[tarfile.TarInfo]:
    """Return what an image holds above its base."""
    config, names = description(built.archive)
    base = len(layers(tree_archive(PYTHON_TREE)))
    assert config["rootfs"]["diff_ids"][:base] == layers(tree_archive(PYTHON_TREE))
    found = []
    with tarfile.open(built.archive) as tar:
        for name in names[base:]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                found += layer.getmembers()
    return found


@pytest.mark.parametrize(
    ("target", "limit"),
    [("agent", AGENT_BYTES), ("broker", BROKER_BYTES)],
    ids=["agent", "broker"],
)
def test_it_is_small(images: dict[str, Built], target: str, limit: int, report: Report) -> None:
    """Above the base that nodes have anyway."""
    base = tree_archive(PYTHON_TREE).stat().st_size
    size = sum(member.size for member in own_files(images[target]))
    report.megabytes("Images", "Python base, made of Debian packages", base)
    report.megabytes("Images", f"{target}, above its base", size)
    assert 100_000 < size < limit


@pytest.mark.parametrize("target", ["agent", "broker"])
def test_it_runs_as_nobody(images: dict[str, Built], target: str) -> None:
    """A user of its own by number, whom nothing in the image belongs to but an empty folder."""
    config, _ = description(images[target].archive)
    assert config["config"]["User"] == "65532:65532"
    owned = {member.name for member in own_files(images[target]) if member.uid or member.gid}
    state = {"agent": "var/lib/penstock-agent", "broker": "var/lib/penstock"}[target]
    assert {name.rstrip("/") for name in owned} == {state}


@pytest.mark.parametrize("target", ["agent", "broker"])
def test_nothing_in_it_may_be_changed_by_others(images: dict[str, Built], target: str) -> None:
    """No file that anybody may write, none that makes its caller another user."""
    files = [member for member in own_files(images[target]) if not member.issym()]
    assert not [member.name for member in files if member.mode & 0o7022]


@pytest.mark.parametrize("target", ["agent", "broker"])
def test_it_says_what_it_is(images: dict[str, Built], target: str) -> None:
    """By the labels that registries and scanners read."""
    labels = description(images[target].archive)[0]["config"]["Labels"]
    names = {name.removeprefix("org.opencontainers.image.") for name in labels}
    assert {"title", "description", "licenses", "version", "revision"} <= names
    assert labels["org.opencontainers.image.title"] == f"penstock-{target}"
    assert labels["org.opencontainers.image.version"] == agents.__version__


def test_every_module_is_compiled(images: dict[str, Built]) -> None:
    """A read-only root keeps no compiled module; without them each probe would compile anew."""
    for target, folder in (("agent", "opt/penstock-agent/"), ("broker", "opt/penstock/")):
        names = {member.name for member in own_files(images[target])}
        ours = {name for name in names if name.startswith(folder) and name.endswith(".py")}
        missing = {
            name
            for name in ours
            if f"{os.path.dirname(name)}/__pycache__/{Path(name).stem}.cpython-311.pyc" not in names
        }
        assert len(ours) > 30
        assert not missing


@pytest.mark.timeout(600)
def test_same_sources_give_the_same_images(
    image_store: ImageStore, images: dict[str, Built], source_tree: Path, tmp_path: Path
) -> None:
    """Built again from a copy with other times; what differs by one octet is another image."""
    again = copy_sources(tmp_path / "tree", source_tree)
    wheels = Path("build") / "wheels"
    subprocess.run(["cp", "-r", source_tree / "build", again], check=True)
    for path in again.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert (again / wheels).is_dir()
    rebuilt = image_store.build(again, prefix="local.test/again-")
    assert {target: one.id for target, one in rebuilt.items()} == {
        target: one.id for target, one in images.items()
    }
    changed = again / "agents" / "__init__.py"
    changed.write_text(changed.read_text("utf-8") + "\n", "utf-8")
    other = image_store.build(again, prefix="local.test/other-", more=("--target=agent",))
    assert other["agent"].id != images["agent"].id


def test_packages_are_those_of_the_lock(images: dict[str, Built], source_tree: Path) -> None:
    """Each package in the broker's environment is pinned, by the hash of the wheel it came from."""
    wheels = sorted((source_tree / "build" / "wheels").glob("*.whl"))
    locked = (source_tree / "requirements" / "image.txt").read_text("ascii")
    locked += (source_tree / "requirements" / "build.txt").read_text("ascii")
    locked += (source_tree / "requirements" / "pip.txt").read_text("ascii")
    assert wheels
    for wheel in wheels:
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in locked, wheel.name
    names = {member.name for member in own_files(images["broker"])}
    folder = f"opt/penstock/lib/python{PYTHON_OF_BASE}/site-packages/"
    found = {
        name.removeprefix(folder).partition(".dist-info/")[0]
        for name in names
        if name.startswith(folder) and ".dist-info/" in name
    }
    ours = {f"{name}-{agents.__version__}" for name in ("penstock", "penstock_agent")}
    pinned = {line.split(" ")[0].replace("==", "-") for line in locked.splitlines() if "==" in line}
    for one in found - ours:
        assert one.replace("_", "-").lower() in {pin.replace("_", "-").lower() for pin in pinned}
    assert ours <= found


def read_bill(built: Built, folder: Path) -> Path:
    """Return an image's own bill of materials."""
    _, names = description(built.archive)
    with (
        tarfile.open(built.archive) as image,
        tarfile.open(fileobj=image.extractfile(names[-1])) as layer,
    ):
        content = layer.extractfile("usr/share/penstock/bill.spdx.json")
        assert content is not None
        written = folder / "bill.spdx.json"
        written.write_bytes(content.read())
    return written


def complaints(bill: Path) -> str:
    """Return what the reader of such bills has to say against one."""
    command = [program("python"), "-m", "spdx_tools.spdx.clitools.pyspdxtools", "-i", bill]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("target", ["agent", "broker"])
def test_its_bill_of_materials_can_be_read(
    images: dict[str, Built], target: str, tmp_path: Path
) -> None:
    """By the reader of those who wrote the format, which refuses the same without a version."""
    bill = read_bill(images[target], tmp_path)
    assert complaints(bill) == ""
    told = json.loads(bill.read_text("ascii"))
    del told["spdxVersion"]
    bill.write_text(json.dumps(told), "ascii")
    assert "spdxVersion" in complaints(bill) or "spdx_version" in complaints(bill)


def test_its_bill_names_everything(
    images: dict[str, Built], source_tree: Path, tmp_path: Path
) -> None:
    """Each package of the lock that is installed, with its hash, and each of Debian's."""
    told = json.loads(read_bill(images["broker"], tmp_path).read_text("ascii"))
    named = {one["name"]: one for one in told["packages"]}
    locked = (source_tree / "requirements" / "image.txt").read_text("ascii")
    for one in ("aiohttp", "cryptography", "cel-expr-python", "dns-lexicon"):
        assert one in named
        assert named[one]["checksums"][0]["checksumValue"] in locked
    assert {"penstock", "penstock-agent", "python", "libc6", "openssl", "ca-certificates"} <= set(
        named
    )
    base = [one for one in named.values() if one["SPDXID"].startswith("SPDXRef-deb-")]
    with tarfile.open(tree_archive(PYTHON_TREE)) as image:
        (layer,) = description(tree_archive(PYTHON_TREE))[1]
        with tarfile.open(fileobj=image.extractfile(layer)) as files:
            status = files.extractfile("./var/lib/dpkg/status")
            assert status is not None
            assert len(base) == status.read().count(b"\nStatus: install ok installed")


def test_the_container_file_has_no_known_fault(tmp_path: Path) -> None:
    """The linter of container files is content with ours, and not with a bad one."""
    ours = REPOSITORY / "deploy" / "Containerfile"
    done = subprocess.run([program("hadolint"), ours], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM debian\nRUN cd /tmp && sudo apt-get install x\n", "ascii")
    done = subprocess.run([program("hadolint"), bad], capture_output=True, text=True, check=False)
    assert done.returncode != 0
