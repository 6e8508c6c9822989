"""What the documents show can be typed: files pass the check, commands and options are there."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from broker.cli import penstock
from tests.standards.sources import REPOSITORY, read
from tests.standards.test_documents import documents

SHOWN = re.compile(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", re.DOTALL)
"""A file that a document shows whole, with where it belongs."""

CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

COMMAND_LINES = frozenset({"", "sh", "console", "ini"})
"""Languages of code that holds command lines."""

PROGRAM = re.compile(r"(?:\$ |.*bin/)?penstock ([a-z-].*)")
"""A line with our command in it, whoever it is run by."""

MENTIONED = re.compile(r"`penstock ((?:[a-z-]+ ?)+)[^`]*`")
"""A command in a sentence; what follows its words may be anything."""

PASSPHRASE = "a passphrase for the sample"


def check(files: dict[str, str], place: Path) -> subprocess.CompletedProcess[str]:
    """Run ``penstock check`` on *files*, put below *place* instead of the root."""
    for name, text in files.items():
        path = place / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("/etc/", f"{place}/etc/"), encoding="utf-8")
    secret = place / "etc/penstock/passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE, encoding="utf-8")
    config = place / "etc/penstock/penstock.yaml"
    return subprocess.run(
        [sys.executable, "-m", "broker", "check", "--strict", "--secrets", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )


def test_first_configuration_passes_the_check(tmp_path: Path) -> None:
    """Whoever copies both files of README.md starts without a fault or a warning."""
    files = dict(SHOWN.findall(read("README.md")))
    assert len(files) == 2
    done = check(files, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"$ penstock check\n{done.stdout}```" in read("README.md")


def test_misspelt_key_in_the_first_configuration_is_told(tmp_path: Path) -> None:
    """The twin: the same check sees one wrong letter, names the line and the right key."""
    files = {
        name: text.replace("upstreams:\n      -", "upstream:\n      -")
        for name, text in SHOWN.findall(read("README.md"))
    }
    done = check(files, tmp_path)
    assert done.returncode == 2
    assert "policies/default.yaml:14" in done.stderr
    assert "upstreams" in done.stderr


def command_lines(text: str) -> Iterator[str]:
    """Yield what stands behind ``penstock`` in the code that *text* shows, joined and bare."""
    for language, block in CODE.findall(text):
        lines = block.replace("\\\n", " ").splitlines() if language in COMMAND_LINES else []
        found = (PROGRAM.match(line) for line in lines)
        yield from (one[1] for one in found if one)


def unknown_words(words: list[str]) -> list[str]:
    """Return what of a command line the program does not have: a command, or an option."""
    command: click.Command = penstock
    context = click.Context(penstock, info_name="penstock")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return [words[0]]
        command, words = found, words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    options |= {"--help", "-h"}
    return [word for word in words if word.startswith("--") and word not in options]


DOCUMENTS = [path for path in documents() if path.parts[0] not in {"changes", "tests"}]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_that_are_shown_exist(document: Path) -> None:
    """Each command line in a document names a command with options that it has."""
    wrong = {
        line: unknown_words(shlex.split(line, comments=True))
        for line in command_lines(read(document))
    }
    assert {line: words for line, words in wrong.items() if words} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_that_are_mentioned_exist(document: Path) -> None:
    """A command that a sentence names is one, too."""
    text = re.sub(r"```.*?```", "", read(document), flags=re.DOTALL)
    wrong = [words for words in MENTIONED.findall(text) if unknown_words(words.split())]
    assert wrong == []


def test_commands_are_looked_for_where_they_are() -> None:
    """The checks see the commands of README.md, and notice one that is not there."""
    assert len(list(command_lines(read("README.md")))) >= 10
    assert unknown_words(["order", "show", "ID", "--json"]) == []
    assert unknown_words(["eab", "create"]) == ["create"]
    assert unknown_words(["check", "--nonsense"]) == ["--nonsense"]
