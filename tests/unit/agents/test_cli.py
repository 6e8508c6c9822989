"""The agent's command line, as far as it goes in this version."""

import pytest

from agents import __version__, cli


def test_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is data, so it is printed to stdout and the exit code is 0."""
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"penstock-agent {__version__}\n"


def test_no_work_given_is_misuse_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Without work to do the command says so on stderr, and does not pretend success."""
    assert cli.main([]) == cli.EXIT_MISUSED
    said = capsys.readouterr()
    assert said.out == ""
    error, hint = said.err.splitlines()
    assert error.startswith("penstock-agent: error: ")
    assert hint.startswith("penstock-agent: hint: ")


def test_unknown_subcommand_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A feature that does not exist yet is refused by name."""
    with pytest.raises(SystemExit) as left:
        cli.main(["run"])
    assert left.value.code == cli.EXIT_MISUSED
    assert "run" in capsys.readouterr().err
