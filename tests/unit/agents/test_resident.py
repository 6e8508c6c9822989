"""The process that stays."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from agents.resident import become_resident, defer, is_resident


def test_it_begins_anew_without_site_and_with_one_heap() -> None:
    """Its arguments and its environment are kept."""
    seen: list[tuple[str, list[str], dict[str, str]]] = []

    def replace(program: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        seen.append((program, list(words), dict(environment)))

    become_resident(["run", "--config", "x"], environment={"A": "b"}, replace=replace)
    ((program, words, environment),) = seen
    assert program == sys.executable
    assert words[1:4] == ["-I", "-S", "-c"]
    assert words[-4:] == ["penstock-agent", "run", "--config", "x"]
    assert environment == {"A": "b", "MALLOC_ARENA_MAX": "1"}


def test_where_it_cannot_be_replaced_it_goes_on() -> None:
    """More memory is no reason not to run."""

    def replace(*_: object) -> None:
        raise PermissionError

    become_resident(["run"], environment={}, replace=replace)


def test_this_process_is_not_the_one_that_stays() -> None:
    """It has its site packages, whatever the environment says."""
    assert not is_resident({"MALLOC_ARENA_MAX": "1"})


def test_a_deferred_module_is_loaded_by_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is then the real one."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    defer("colorsys")
    import colorsys

    assert "rgb_to_hls" not in vars(colorsys)
    assert callable(colorsys.rgb_to_hls)
    assert "rgb_to_hls" in vars(sys.modules["colorsys"])


def test_a_module_that_is_there_is_left_alone() -> None:
    """Others hold it already."""
    before = sys.modules["sys"]
    defer("sys")
    assert sys.modules["sys"] is before


def test_a_stop_before_there_is_a_handler_ends_it_well() -> None:
    """The kernel ends a container's first process by no signal that it has no handler for."""
    script = "from agents.resident import leave_when_stopped as l; l(); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait() == 0
