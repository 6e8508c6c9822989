"""Shell completion."""

import os
import subprocess
import sys

import pytest

from tests.unit.commands.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed_for_each_shell(run: Run, shell: str) -> None:
    """It calls us back under the name that we listen to."""
    status, out, _ = run("completion", shell)
    assert status == 0
    assert f"_PENSTOCK_COMPLETE={shell}_complete" in out


def test_commands_are_completed() -> None:
    """What the script asks for, answered."""
    code = "import sys; from broker.cli import main; sys.exit(main())"
    environment = {
        **os.environ,
        "_PENSTOCK_COMPLETE": "bash_complete",
        "COMP_WORDS": "penstock up",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "plain,upstream\n"
