"""The agent as one file: the same octets everywhere, and it runs wherever Python is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import agents

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "deploy" / "agent_zipapp.py"
SYSTEM_PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
"""The Python that our environment was made from: none of our libraries is there."""

OLDEST = 11
"""Minor version of the oldest Python 3 that it runs by."""

RUN_SECONDS = 60

MAKE_KEY = """\
import sys
sys.path.insert(0, sys.argv[1])
from agents.child import run_child
work = {"do": "key-and-csr", "kind": "ec-p256", "path": sys.argv[2], "names": ["a.example"]}
made = run_child(work)
sys.stdout.write(made["key_kind"] + " " + str(len(made["csr_der"]) > 100))
"""


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside the clone, without Python's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**kept, **more},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


def pythons() -> list[Path]:
    """Return every Python 3 of this machine: those of the system, and those that pyenv keeps."""
    kept = Path.home() / ".pyenv" / "versions"
    named = [Path("/usr/bin").glob("python3.[0-9]*"), Path("/usr/local/bin").glob("python3.[0-9]*")]
    found = [one for paths in named for one in paths if one.suffix[1:].isdecimal()]
    found += [SYSTEM_PYTHON, *kept.glob("3.*/bin/python3")]
    return sorted({one.resolve() for one in found}, key=str)


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, as `make agent` does."""
    target = tmp_path_factory.mktemp("dist") / "penstock-agent.pyz"
    done = run(sys.executable, BUILD, "--target", target)
    assert done.returncode == 0, done.stderr
    return target


def test_same_tree_gives_the_same_octets(zipapp: Path, tmp_path: Path) -> None:
    """Whoever builds it can compare; neither times, locale nor umask are in it."""
    again = tmp_path / "again.pyz"
    before = os.umask(0o027)
    try:
        done = run(SYSTEM_PYTHON, BUILD, "--target", again, TZ="Asia/Tokyo", LC_ALL="C")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == zipapp.read_bytes()


def test_it_holds_every_module_and_nothing_else(zipapp: Path) -> None:
    """A module that is forgotten is missed on the host that needs it first."""
    with zipfile.ZipFile(zipapp) as archive:
        names = set(archive.namelist())
    modules = {f"agents/{path.name}" for path in (REPOSITORY / "agents").glob("*.py")}
    assert names == modules | {"__main__.py", "agents/LICENSE", "agents/NOTICE", "agents/py.typed"}


@pytest.mark.parametrize("python", [SYSTEM_PYTHON, Path(sys.executable)], ids=["bare", "ours"])
def test_it_tells_its_version(zipapp: Path, python: Path) -> None:
    """Isolated, outside any environment, and inside one with libraries."""
    done = run(python, "-I", zipapp, "--version")
    assert done.stdout.strip() == f"penstock-agent {agents.__version__}", done.stderr


def test_it_is_a_program_of_its_own(zipapp: Path) -> None:
    """`cp penstock-agent.pyz /usr/local/bin/penstock-agent` is an installation."""
    done = run(zipapp, "--version")
    assert done.stdout.strip() == f"penstock-agent {agents.__version__}", done.stderr


@pytest.mark.parametrize("python", [SYSTEM_PYTHON, Path(sys.executable)], ids=["bare", "ours"])
def test_its_child_makes_keys_from_within_the_file(
    zipapp: Path, python: Path, tmp_path: Path
) -> None:
    """By `openssl` where `cryptography` is not installed, by that where it is."""
    done = run(python, "-I", "-c", MAKE_KEY, zipapp, tmp_path / "key.pem")
    assert done.stdout == "ec-p256 True", done.stderr
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_each_python_here_runs_it_or_says_why_not(
    zipapp: Path, python: Path, tmp_path: Path
) -> None:
    """From the oldest that is promised on it makes keys; before that, one sentence and no trace."""
    minor = int(run(python, "-I", "-c", "import sys; print(sys.version_info[1])").stdout)
    told = run(python, "-I", zipapp, "--version")
    if minor < OLDEST:
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == (
            f"penstock-agent: error: Python 3.{OLDEST} or later is needed, this is 3.{minor}\n"
        )
        return
    assert told.stdout.strip() == f"penstock-agent {agents.__version__}", told.stderr
    made = run(python, "-I", "-c", MAKE_KEY, zipapp, tmp_path / "key.pem")
    assert made.stdout == "ec-p256 True", made.stderr


def test_bare_python_has_no_library_of_ours() -> None:
    """Else the tests above would say less than they seem to."""
    found = run(SYSTEM_PYTHON, "-I", "-c", "import aiohttp")
    assert found.returncode != 0
