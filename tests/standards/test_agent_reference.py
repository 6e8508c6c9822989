"""The page of the agent's configuration says what the code reads."""

import dataclasses

import pytest

import agents.config
from agents.cli import build_parser
from tests.standards.agent_reference import SECTIONS, keys_of, page
from tests.standards.sources import REPOSITORY, read

PAGE = "docs/agent-configuration.md"
HELP = "tests/golden/agent-help.txt"


def help_text() -> str:
    """Return what `penstock-agent --help` and that of each command print."""
    parser = build_parser()
    # By name: a run of the agent in this process may have dropped the module, and brought another.
    (commands,) = (one for one in parser._actions if type(one).__name__ == "_SubParsersAction")
    assert commands.choices is not None
    parts = [parser.format_help()]
    parts += [commands.choices[name].format_help() for name in commands.choices]
    return "\n".join(parts)


def test_page_is_what_the_code_says(update_golden: bool) -> None:
    """The page in the project is the one that would be written now."""
    if update_golden:
        (REPOSITORY / PAGE).write_text(page(), encoding="utf-8")
    else:
        assert read(PAGE) == page()


def test_help_is_what_was_reviewed(update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command or an option that comes, goes or changes is seen in a diff."""
    monkeypatch.setenv("COLUMNS", "80")
    if update_golden:
        (REPOSITORY / HELP).write_text(help_text(), encoding="utf-8")
    else:
        assert read(HELP) == help_text()


@pytest.mark.parametrize(("function", "kept"), [one[1:] for one in SECTIONS])
def test_every_field_has_its_key(function: str, kept: str) -> None:
    """What is kept of a section is read from it under the same name."""
    section = getattr(agents.config, kept)
    keys = {key for key, _, _ in keys_of(function, section)}
    fields = {field.name for field in dataclasses.fields(section)}
    stands_for_two = {"connect"} if kept == "LookSection" else set()
    assert keys - stands_for_two == fields - ({"host", "port"} if stands_for_two else set())
