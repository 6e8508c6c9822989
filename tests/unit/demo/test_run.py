"""What the demonstration refuses to begin with; the rest is shown in tests/e2e/test_demo.py."""

import os
from pathlib import Path

import pytest

from broker.demo import DemoFailed, run_demo


async def test_client_that_is_not_there_ends_it_at_once(tmp_path: Path) -> None:
    """Before anything is started or written."""
    kept = tmp_path / "kept"
    with pytest.raises(DemoFailed, match=r"there is no certbot at .*; `make demo` puts one there"):
        await run_demo(kept, certbot=tmp_path / "certbot", say=pytest.fail)
    assert not kept.exists()


async def test_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    """The files of an earlier demonstration are not written over."""
    certbot = tmp_path / "certbot"
    certbot.touch()
    with pytest.raises(DemoFailed, match="is not empty"):
        await run_demo(tmp_path, certbot=certbot, say=pytest.fail)
    assert os.listdir(tmp_path) == ["certbot"]
