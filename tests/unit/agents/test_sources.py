"""A configuration comes from a file, or from one variable of the environment."""

from pathlib import Path

import pytest

from agents.config import ConfigFault, load
from agents.sources import find_includes, is_environment, read_source

TEXT = """
[node]
allowed = ["/tls"]
[broker]
url = "https://broker.example.test"
anchors = "/trust/ca.crt"
[enrol]
method = "kubernetes"
credential = "file:/token"
"""

NAME = "PENSTOCK_AGENT_CONFIG"


def read(source: str) -> tuple[dict[str, object], list[str]]:
    """Return what a source says, and what is wrong with it."""
    faults: list[str] = []
    return read_source(source, faults), faults


def test_a_variable_is_read_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text is the same configuration, and is checked as strictly."""
    path = tmp_path / "agent.toml"
    path.write_text(TEXT)
    monkeypatch.setenv(NAME, TEXT)
    assert load(f"env:{NAME}") == load(str(path))
    monkeypatch.setenv(NAME, TEXT + "[nodes]\n")
    with pytest.raises(ConfigFault) as refused:
        load(f"env:{NAME}")
    assert refused.value.faults == (f"env:{NAME}: nodes: is not known, did you mean 'node'",)


def test_a_variable_has_no_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that can write below its working directory adds no certificates by it."""
    (tmp_path / "agent.d").mkdir()
    (tmp_path / "agent.d" / "more.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert find_includes("agent.toml") == ["./agent.d/more.toml"]
    assert find_includes(f"env:{NAME}") == []
    assert is_environment(f"env:{NAME}")
    assert not is_environment("/etc/env:NAME")


def test_a_variable_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its twin: one that is there is read."""
    monkeypatch.delenv(NAME, raising=False)
    assert read(f"env:{NAME}") == ({}, [f"env:{NAME}: is not set in the environment"])
    monkeypatch.setenv(NAME, 'a = "b"')
    assert read(f"env:{NAME}") == ({"a": "b"}, [])


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"a = ", "is not TOML"),
        (b'a = "\xff"', "is not TOML"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
    ids=["half", "no-utf8", "deep"],
)
def test_what_is_no_configuration_is_told(tmp_path: Path, octets: bytes, said: str) -> None:
    """With the file's name."""
    path = tmp_path / "agent.toml"
    path.write_bytes(octets)
    found, (fault,) = read(str(path))
    assert found == {}
    assert fault.startswith(f"{path}: {said}")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As the system says it."""
    assert read(f"{tmp_path}/no.toml")[1] == [
        f"{tmp_path}/no.toml: cannot be read: No such file or directory"
    ]


def test_a_file_past_the_limit_is_not_read(tmp_path: Path) -> None:
    """One below it is."""
    path = tmp_path / "agent.toml"
    with path.open("wb") as file:
        file.truncate(32 * 1024 * 1024 + 1)
    assert read(str(path))[1] == [f"{path}: is past the limit of 33554432 bytes"]
