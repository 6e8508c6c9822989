"""The pinned lists: every package by hash, no address of anywhere, nothing out of step."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.standards.sources import REPOSITORY, read

LISTS = sorted(path.stem for path in (REPOSITORY / "requirements").glob("*.in"))


def pins(name: str) -> dict[str, set[Version]]:
    """Return the versions that a compiled list pins, several where markers tell them apart."""
    found: dict[str, set[Version]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", read_list(name), re.MULTILINE):
        found.setdefault(canonicalize_name(package), set()).add(Version(version))
    return found


def read_list(name: str) -> str:
    """Return the text of a compiled list."""
    return read(f"requirements/{name}.txt")


def asked_for(name: str) -> list[Requirement]:
    """Return what an uncompiled list asks for, the lists it refers to aside."""
    lines = (line.split(" #")[0].strip() for line in read(f"requirements/{name}.in").splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def test_there_are_lists() -> None:
    """The folder holds the five lists that the Makefile installs, and the two of the images."""
    assert LISTS == ["build", "demo", "dev", "docs", "image", "pip", "prod"]


@pytest.mark.parametrize("name", LISTS)
def test_list_names_no_host(name: str) -> None:
    """A list says what, never where from."""
    assert "://" not in read_list(name)
    assert not re.search(r"^\s*--(?!hash=)", read_list(name), re.MULTILINE)


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_a_pin_with_its_hashes(name: str) -> None:
    """Each requirement is one version with at least one SHA-256."""
    entries = re.sub(r"\\\n\s*", "", read_list(name)).splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+==[^\s;]+( ; .+?)? *(--hash=sha256:[0-9a-f]{64} *)+$", entry), (
            entry
        )


@pytest.mark.parametrize("name", LISTS)
def test_list_meets_what_was_asked_for(name: str) -> None:
    """Each requirement of the .in file is met by the pins beside it; `make lock` renews them."""
    pinned = pins(name)
    assert asked_for(name)
    for requirement in asked_for(name):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not pinned"
        assert all(version in requirement.specifier for version in versions), requirement


@pytest.mark.parametrize("larger", ["dev"])
def test_development_runs_what_production_runs(larger: str) -> None:
    """What is tested is what is shipped: dev.txt pins all of prod.txt, in the same versions."""
    tested = pins(larger)
    assert {name: tested.get(name) for name in pins("prod")} == pins("prod")


def test_images_hold_what_was_tested() -> None:
    """The broker's image has what production runs, and beyond that only what development has."""
    held, tested = pins("image"), pins("dev")
    assert {name: held.get(name) for name in pins("prod")} == pins("prod")
    assert {name: tested.get(name) for name in held} == held


def test_build_tool_is_the_same_everywhere() -> None:
    """The demonstration is built by the build tool that development uses."""
    tested = pins("dev")
    assert {name: tested.get(name) for name in pins("build")} == pins("build")
