"""The options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

__all__ = [
    "LAST_GOOD",
    "as_json",
    "config_option",
    "last_good_option",
    "page_options",
    "reason_option",
]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG: Final = "/etc/penstock/penstock.yaml"

config_option: Final = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PENSTOCK_CONFIG",
    default=Path(DEFAULT_CONFIG),
    help=f"Configuration file, also PENSTOCK_CONFIG.  [default: {DEFAULT_CONFIG}]",
)
"""Where the configuration lies."""

LAST_GOOD: Final = "PENSTOCK_LAST_GOOD"
"""Names the file in which the configuration that served last is kept."""

last_good_option: Final = click.option(
    "--last-good",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=LAST_GOOD,
    help=f"Where the configuration that served last is kept, and taken from where the file is no "
    f"use; also {LAST_GOOD}.",
)
"""What there is beside the configuration file."""

as_json: Final = click.option("--json", "is_json", is_flag=True, help="Print JSON instead of text.")
"""For programs that read the output."""

reason_option: Final = click.option(
    "--reason", metavar="TEXT", help="Why; kept with the event, and not told to clients."
)
"""Why something is changed."""


def page_options(command: F) -> F:
    """Add the options of a list."""
    command = click.option(
        "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Most rows."
    )(command)
    return click.option("--after", metavar="ID", help="Begin after this row.")(command)
