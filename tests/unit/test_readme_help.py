"""README.md shows the help text that the program prints."""

import os
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"

BEGIN = "<!-- help:begin -->"
END = "<!-- help:end -->"


def help_text() -> str:
    """Return what `penstock --help` prints on a terminal of 80 columns without colour."""
    program = Path(sys.executable).parent / "penstock"
    done = subprocess.run(
        [program, "--help"],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def with_help(readme: str, text: str) -> str:
    """Return *readme* with what stands between its two markers replaced by *text*."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n```text\n{text.rstrip()}\n```\n{END}{after}"


def test_readme_shows_the_help_text(update_golden: bool) -> None:
    """A reader of README.md sees the commands there are; `make help-text` writes them anew."""
    readme = README.read_text(encoding="utf-8")
    current = with_help(readme, help_text())
    if update_golden:
        README.write_text(current, encoding="utf-8")
    else:
        assert readme == current


def test_only_the_marked_part_is_replaced() -> None:
    """The rest of the file is left as it is."""
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_help(readme, "new\n") == f"before\n{BEGIN}\n```text\nnew\n```\n{END}\nafter\n"
