"""Where a command reads the trail from."""

from pathlib import Path

import pytest

from broker.commands.audit_reading import find_json, read_checkpoints, read_file, read_store
from broker.commands.failures import CommandFailed
from broker.issuance.audit_chain import ChainedRecord
from tests.unit.commands.test_audit import make_store
from tests.unit.config.conftest import parsed
from tests.unit.issuance.test_audit_chain import chained

LINE = chained(1).line(bytes(32))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param(LINE, LINE, id="bare"),
        pytest.param(f"2026-03-01 host penstock [x@1] {LINE}\r\n", LINE, id="from a collector"),
        pytest.param('<13>1 … {"checkpoint":"a.b.c"}', '{"checkpoint":"a.b.c"}', id="checkpoint"),
        pytest.param("something else", None, id="other"),
    ],
)
def test_json_is_found_in_a_line(line: str, found: str | None) -> None:
    """Whatever a collector puts around it."""
    assert find_json(line) == found


async def test_store_is_read_whole(tmp_path: Path) -> None:
    """Records in their order, and the checkpoints beside them."""
    await make_store(tmp_path)
    taken: list[ChainedRecord] = []
    import asyncio

    trail = await asyncio.to_thread(read_store, parsed({"state": str(tmp_path)}), taken.append)
    assert [one.seq for one in taken] == [1, 2, 3]
    assert [one.parsed.stated.seq for one in trail.checkpoints] == [3]


def test_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Rather than an empty chain that fits."""
    with pytest.raises(CommandFailed, match="no store"):
        read_store(parsed({"state": str(tmp_path)}), lambda _: None)


def test_torn_line_is_told_with_its_number(tmp_path: Path) -> None:
    """And what follows is read."""
    path = tmp_path / "file"
    path.write_text(f'{LINE[:40]}\n{LINE}\nnoise\n\n{{"left_out":"record"}}\n')
    taken: list[ChainedRecord] = []
    trail = read_file(path, taken.append)
    assert [one.seq for one in taken] == [1]
    assert [one.partition(" of ")[0] for one in trail.unreadable] == ["line 1", "line 3"]
    assert trail.left_out == 1


def test_file_without_checkpoints_is_told(tmp_path: Path) -> None:
    """Nothing is verified by nothing."""
    path = tmp_path / "file"
    path.write_text(f"{LINE}\n")
    with pytest.raises(CommandFailed, match="no checkpoint"):
        read_checkpoints(path)
    with pytest.raises(CommandFailed, match="cannot be read"):
        read_checkpoints(tmp_path / "absent")
