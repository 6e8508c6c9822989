"""The child that has to do with keys: a process of its own, and only as long as its work."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from agents import child
from agents.child import ChildFault, craft_command, run_child, run_children

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[3]


def test_work_is_done_and_answered(tmp_path: Path) -> None:
    """The key lies where the work said, and nothing of it is in the answer."""
    path = tmp_path / "key.pem"
    answer = run_child({"do": "identity-request", "path": str(path)})
    assert set(answer) == {"csr_der", "spki_sha256", "spki_der", "key_kind"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_fault_is_raised_with_its_reason(tmp_path: Path) -> None:
    """And is no accident."""
    with pytest.raises(ChildFault, match="No such file") as caught:
        run_child({"do": "csr", "key": str(tmp_path / "absent"), "names": []})
    assert caught.value.reason == str(caught.value)


def test_several_pieces_by_one_child(tmp_path: Path) -> None:
    """Each has its own answer or fault."""
    works = [{"do": "dig"}, {"do": "identity-request", "path": str(tmp_path / "key.pem")}]
    first, second = run_children(works)
    assert isinstance(first, ChildFault)
    assert isinstance(second, dict)


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """With the programs that it has started; what it would have made is not there."""
    path = tmp_path / "key.pem"
    work = {
        "do": "key-and-csr",
        "kind": "rsa-4096",
        "path": str(path),
        "names": [],
        "by": "openssl",
    }
    with pytest.raises(ChildFault, match="took longer than"):
        run_child(work, timeout=0.01)
    assert not path.exists()


def started_as(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Have another program stand for the child."""
    monkeypatch.setattr(child, "craft_command", lambda: list(command))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise ValueError('SECRET')", r"ended with 1 \(ValueError\)"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('no JSON')", "no answer that can be read"),
        ("print('[]')", "no answer that can be read"),
    ],
    ids=["error", "killed", "no JSON", "no object"],
)
def test_however_it_ends(monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    """It is a fault, and what it was working on is not told."""
    started_as(monkeypatch, sys.executable, "-I", "-c", program)
    with pytest.raises(ChildFault, match=said) as caught:
        run_child({"do": "sign"})
    assert "SECRET" not in caught.value.reason


def test_a_child_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is gone, after an update, say."""
    started_as(monkeypatch, "/nowhere/python")
    with pytest.raises(ChildFault, match="cannot be started"):
        run_child({"do": "sign"})


def test_nothing_of_the_environment_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither PYTHONPATH nor the working directory can put a module into the child."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run_child({"do": "identity-request", "path": str(tmp_path / "key.pem")})


def test_the_resident_process_loads_no_library_of_cryptography() -> None:
    """What asks the child, checks and installs is the standard library's."""
    program = (
        "import sys; sys.path.append(sys.argv[1]); "
        "import agents.keys, agents.verify, agents.install, agents.sealing, agents.recovery; "
        "print([one for one in sys.modules if one.startswith(('cryptography', 'ctypes', '_cffi'))])"
    )
    command = [sys.executable, "-I", "-c", program, str(ROOT)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_zipapp_starts_itself_as_the_child(tmp_path: Path) -> None:
    """Where all is one file, the child is found in it."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "agents", source / "agents", ignore=shutil.ignore_patterns("__pyc*"))
    (source / "__main__.py").write_text(
        "from agents.child import run_child, craft_command\n"
        "import sys\n"
        "print(craft_command()[-1])\n"
        "print(run_child({'do': 'identity-request', 'path': sys.argv[1]})['key_kind'])\n"
    )
    packed = tmp_path / "agent.pyz"
    zipapp.create_archive(source, packed)
    command = [sys.executable, "-I", str(packed), str(tmp_path / "key.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == [str(packed), "ec-p256"]


def test_the_command_is_a_list_without_secrets() -> None:
    """Work goes by standard input, so a list of processes shows none of it."""
    command = craft_command()
    assert command[:3] == [sys.executable, "-I", "-c"]
    assert command[-1] == str(ROOT)
