"""``python -m broker``."""

import subprocess
import sys


def test_module_is_the_command() -> None:
    """It prints what ``penstock`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "broker", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("penstock ")
