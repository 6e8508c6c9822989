"""Both distributions, built and installed outside the clone, as a user would have them.

Fetching the broker's libraries takes a package index, so this suite belongs to
`make test` and not to `make check`.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

import agents

REPOSITORY = Path(__file__).resolve().parents[2]

INSTALL_SECONDS = 280
"""Longest that one step may take: a slow line fetches some 30 MiB of libraries."""


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without Python's own variables, and return what it said."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def export_tree(target: Path) -> Path:
    """Copy what git tracks or would track, uncommitted changes included, and nothing ignored."""
    listed = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build both wheels from an export of the tree, with the build tool that dev.txt pins."""
    tree = export_tree(tmp_path_factory.mktemp("tree"))
    out = tmp_path_factory.mktemp("wheels")
    for project in (tree, tree / "agents"):
        run(
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", out, project),
            cwd=out,
        )
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def new_environment(folder: Path) -> Path:
    """Make a virtual environment and return its folder of programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


def pip(programs: Path, *arguments: str | Path) -> str:
    """Run an environment's pip and return what it said."""
    return run(programs / "python", "-m", "pip", *arguments, cwd=programs).stdout


@pytest.fixture(scope="module")
def broker_host(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a host with both wheels, their libraries being exactly prod.txt.

    The wheels are installed without an index, so pip itself finds out when prod.txt
    lacks something that the metadata of `penstock` asks for.
    """
    programs = new_environment(tmp_path_factory.mktemp("broker-host") / "venv")
    pins = REPOSITORY / "requirements" / "prod.txt"
    pip(programs, "install", "--quiet", "--require-hashes", "-r", pins)
    pip(programs, "install", "--quiet", "--no-index", *wheels.values())
    pip(programs, "check")
    return programs


@pytest.fixture(scope="module")
def agent_host(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a host with the agent's wheel alone."""
    programs = new_environment(tmp_path_factory.mktemp("agent-host") / "venv")
    pip(programs, "install", "--quiet", "--no-index", wheels["penstock_agent"])
    return programs


def names_in(wheel: Path) -> Sequence[str]:
    """Return the names of the files in *wheel*."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> Message:
    """Return the metadata of *wheel*."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def packages_in(wheel: Path) -> set[str]:
    """Return the top-level names that *wheel* installs, its own metadata aside."""
    tops = {name.split("/")[0] for name in names_in(wheel)}
    return {top for top in tops if not top.endswith(".dist-info")}


def test_each_wheel_owns_one_package(wheels: dict[str, Path]) -> None:
    """No import package is installed by both distributions."""
    assert packages_in(wheels["penstock"]) == {"broker"}
    assert packages_in(wheels["penstock_agent"]) == {"agents"}


def test_agent_wheel_holds_code_and_licence_alone(wheels: dict[str, Path]) -> None:
    """Nothing of the folder's build files is installed on a node."""
    files = [name for name in names_in(wheels["penstock_agent"]) if ".dist-info/" not in name]
    assert "agents/cli.py" in files
    assert all(name.endswith((".py", "py.typed")) for name in files), files


@pytest.mark.parametrize("distribution", ["penstock", "penstock_agent"])
def test_wheel_carries_the_licence_text(wheels: dict[str, Path], distribution: str) -> None:
    """The licence travels as text, with each of the two."""
    with zipfile.ZipFile(wheels[distribution]) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(name) == (REPOSITORY / "LICENSE").read_bytes()


def test_default_policies_travel_whole(wheels: dict[str, Path]) -> None:
    """Every file of policies/ lies in the broker's wheel under broker/default_policies."""
    kept = {
        str(path.relative_to(REPOSITORY / "policies"))
        for path in (REPOSITORY / "policies").rglob("*")
        if path.is_file()
    }
    prefix = "broker/default_policies/"
    carried = {
        name.removeprefix(prefix)
        for name in names_in(wheels["penstock"])
        if name.startswith(prefix)
    }
    assert "default.yaml" in kept
    assert carried == kept


def test_migrations_travel_whole(wheels: dict[str, Path]) -> None:
    """Every migration of the store lies in the broker's wheel."""
    folder = Path("broker", "storage", "migrations")
    kept = {str(folder / path.name) for path in (REPOSITORY / folder).glob("*.sql")}
    assert kept
    assert kept <= set(names_in(wheels["penstock"]))


def test_broker_depends_on_the_agent_of_its_own_version(wheels: dict[str, Path]) -> None:
    """The two distributions can only be installed in the same version."""
    metadata = metadata_of(wheels["penstock"])
    assert metadata["Version"] == agents.__version__
    assert f"penstock-agent=={agents.__version__}" in metadata.get_all("Requires-Dist", [])
    assert metadata_of(wheels["penstock_agent"])["Version"] == agents.__version__


def test_agent_depends_on_nothing(wheels: dict[str, Path]) -> None:
    """The agent's metadata names no dependency at all."""
    assert metadata_of(wheels["penstock_agent"]).get_all("Requires-Dist") is None


def test_agent_alone_brings_no_library_and_no_broker(agent_host: Path) -> None:
    """A host that installs the agent has the agent, pip's own tools and nothing more."""
    listed = pip(agent_host, "list", "--format=freeze").splitlines()
    installed = {line.split("==")[0].replace("_", "-").lower() for line in listed}
    assert installed - {"pip", "setuptools", "wheel"} == {"penstock-agent"}
    probe = "from importlib.util import find_spec as f; print(bool(f('agents')), f('broker'))"
    found = run(agent_host / "python", "-c", probe, cwd=agent_host)
    assert found.stdout.strip() == "True None"


def test_agent_command_tells_its_version(agent_host: Path) -> None:
    """`penstock-agent --version` answers on a host without the broker."""
    done = run(agent_host / "penstock-agent", "--version", cwd=agent_host)
    assert done.stdout.strip() == f"penstock-agent {agents.__version__}"


def test_broker_command_tells_its_version(broker_host: Path) -> None:
    """`penstock --version` answers outside the clone, and begins with name and version."""
    done = run(broker_host / "penstock", "--version", cwd=broker_host)
    assert re.match(rf"penstock {re.escape(agents.__version__)}\b", done.stdout)


def test_broker_command_explains_check(broker_host: Path) -> None:
    """`penstock check --help` works with the libraries of prod.txt and no other."""
    done = run(broker_host / "penstock", "check", "--help", cwd=broker_host)
    assert done.stdout.startswith("Usage: penstock check")


def test_broker_host_has_the_agent_command_too(broker_host: Path) -> None:
    """The broker's distribution brings the agent's command along."""
    done = run(broker_host / "penstock-agent", "--version", cwd=broker_host)
    assert done.stdout.strip() == f"penstock-agent {agents.__version__}"


def test_installed_broker_finds_default_policies_beside_itself(broker_host: Path) -> None:
    """The package data is reachable as files, the way the configuration reads it."""
    probe = (
        "import importlib.resources as r;"
        "print((r.files('broker') / 'default_policies' / 'default.yaml').is_file())"
    )
    assert run(broker_host / "python", "-c", probe, cwd=broker_host).stdout.strip() == "True"
