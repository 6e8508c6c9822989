"""The options that many commands share."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from broker.commands.options import as_json, config_option, page_options, reason_option


@click.command()
@page_options
@reason_option
@config_option
@as_json
def shown(**given: object) -> None:
    """Print what was given."""
    click.echo("\n".join(f"{name}={value}" for name, value in sorted(given.items())))


@pytest.mark.parametrize(
    ("arguments", "environment", "config"),
    [
        ([], {}, "/etc/penstock/penstock.yaml"),
        ([], {"PENSTOCK_CONFIG": "/env.yaml"}, "/env.yaml"),
        (["--config", "/flag.yaml"], {"PENSTOCK_CONFIG": "/env.yaml"}, "/flag.yaml"),
    ],
    ids=["default", "environment", "flag"],
)
def test_flag_beats_environment_beats_default(
    arguments: list[str], environment: dict[str, str], config: str
) -> None:
    """As everywhere."""
    out = CliRunner(env=environment).invoke(shown, arguments).output
    assert f"config_path={Path(config)}\n" in out


def test_page_has_a_limit_unless_said_otherwise() -> None:
    """A list of all certificates would be long."""
    out = CliRunner().invoke(shown, []).output
    assert "limit=100\n" in out
    assert "after=None\n" in out
