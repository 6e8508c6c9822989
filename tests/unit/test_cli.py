"""The command line as a whole: what is listed, how failures are told, what the help says."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from broker.cli import COMMANDS, LazyGroup, main, penstock

GOLDEN = Path(__file__).parents[1] / "golden" / "help.txt"
SAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "penstock.yaml"


def walk(command: click.Command, path: list[str]) -> list[list[str]]:
    """Return the path of *command* and of every command below it."""
    found = [path]
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            found += walk(below, [*path, name])
    return found


@pytest.mark.parametrize("name", list(COMMANDS))
def test_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """The table in cli.py is there to save imports, and not to say something else."""
    where, text = COMMANDS[name]
    module, _, attribute = where.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert command.get_short_help_str(limit=100) == text


def test_help_of_every_command_is_as_reviewed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, update_golden: bool
) -> None:
    """``--update-golden`` writes the file anew."""
    monkeypatch.setenv("COLUMNS", "80")
    parts = []
    for path in walk(penstock, []):
        assert main([*path, "--help"]) == 0
        parts.append(f"$ {' '.join(['penstock', *path, '--help'])}\n{capsys.readouterr().out}")
    text = "\n".join(parts)
    if update_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    else:
        assert text == GOLDEN.read_text(encoding="utf-8")


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Name, version, and the Python that runs it."""
    assert main(["--version"]) == 0
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+ \(python 3\.\d+\.\d+\)\n", capsys.readouterr().out)


def test_listing_imports_no_command() -> None:
    """``penstock --help`` and completion stay fast."""
    code = (
        "import sys; from broker.cli import main; main(['--help']);"
        "print([m for m in sys.modules if m.startswith(('broker.commands', 'aiohttp'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_asking_the_broker_imports_no_part_of_it() -> None:
    """A command that asks the running broker reads the configuration: no web server, no policy."""
    code = (
        "import sys; from pathlib import Path; import broker.commands.requesters;"
        "from broker.commands.connection import ask_running; from broker.config import load_config;"
        f"load_config(Path({str(SAMPLE)!r})); ask_running(Path('/nonexistent/socket'), 'status');"
        "heavy = ('aiohttp', 'broker.app', 'broker.storage', 'broker.policy.document');"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "no such command 'bogus'"),
        (["order", "show"], "missing argument"),
        (["order", "list", "--limit", "0"], "is not in the range"),
        (["--bogus"], "no such option"),
        (["cert", "revoke", "x", "--code", "boredom"], "'boredom' is not one of"),
        (["policy", "explain", "a", "--account", "b", "--eab", "c"], "exclude each other"),
    ],
    ids=["command", "argument", "range", "option", "choice", "both"],
)
def test_misuse_is_an_error_with_a_hint_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Data stays off standard output."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert error.startswith("penstock: error: ")
    assert words in error.lower()
    assert hint.startswith("penstock: hint: see penstock")
    assert hint.endswith("--help")


def test_no_command_is_misuse_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, since it was not asked for."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: penstock" in err


def test_unknown_name_is_no_command() -> None:
    """Nothing is imported for a name that is not in the table."""
    assert LazyGroup("x").get_command(click.Context(penstock), "os") is None
