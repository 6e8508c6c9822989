"""``penstock prepare``: what has to be there before the broker serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option, last_good_option, reason_option
from broker.commands.output import print_json

if TYPE_CHECKING:
    from broker.config import Config

__all__ = ["prepare"]


@click.command("prepare", short_help="Bring the store up to date, and make built-in CAs.")
@click.option(
    "--make-ca",
    "wanted",
    metavar="NAME[=SUFFIX,...]",
    multiple=True,
    help="Make this built-in CA unless it is there, for names at or below the suffixes; without "
    "them for those that policies allow now. May be repeated.",
)
@reason_option
@config_option
@last_good_option
@as_json
def prepare(
    wanted: tuple[str, ...],
    reason: str | None,
    config_path: Path,
    *,
    last_good: Path | None,
    is_json: bool,
) -> None:
    """Bring the store up to date and make built-in CAs, so that the broker can serve.

    A sealed backup precedes each migration, see upgrade.backup. What is there already stays as it
    is: a second run changes nothing. No broker may run meanwhile.
    """
    with readable():
        config = _read(config_path, last_good)
        asked = dict(_parse_wish(one) for one in wanted)
        made = [] if _is_prepared(config, asked) else _prepare(config, asked, reason)
    if is_json:
        print_json({"made": list(made)})
    else:
        for name in made:
            click.echo(f"built-in CA '{name}' made")


def _read(path: Path, last_good: Path | None) -> Config:
    """Return the configuration, or the kept one where the file is no use."""
    from broker.config import load_config
    from broker.issuance.errors import Broken
    from broker.policy.yamlfile import Faults

    try:
        return load_config(path)
    except (Broken, Faults) as error:
        if last_good is None:
            raise
        from broker.app.kept_config import KeptConfig

        kept = KeptConfig(last_good).read()
        if kept is None:
            raise
        click.echo(f"penstock: warning: {path} is no use, what served last is: {error}", err=True)
        return kept.reading.config


def _parse_wish(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the CA and the suffixes that ``NAME`` or ``NAME=SUFFIX,SUFFIX`` asks for."""
    upstream, equals, suffixes = text.partition("=")
    names = tuple(suffixes.split(",")) if equals else ()
    if not upstream or any(not one for one in names):
        raise click.BadParameter(
            f"'{text[:64]}' is not of the form NAME or NAME=SUFFIX,SUFFIX", param_hint="--make-ca"
        )
    return upstream, names


def _is_prepared(config: Config, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Return whether there is nothing to do, as at every start but the first of a version.

    A whole broker is not put together to find that out: meanwhile nobody is served.
    """
    from broker.config.model import DATABASE
    from broker.storage.faults import StoreLocked
    from broker.storage.glance import glance_alone

    try:
        seen = glance_alone(config.state / DATABASE)
    except StoreLocked as error:
        raise CommandFailed(error.reason, "stop the broker first") from error
    return seen is not None and not seen.pending and set(wanted) <= seen.authorities


def _prepare(
    config: Config, wanted: Mapping[str, Sequence[str]], reason: str | None
) -> Sequence[str]:
    from broker.app import StoreLocked
    from broker.app.preparing import prepare as run
    from broker.issuance.errors import Conflict, Refused, Unreachable
    from broker.issuance.events import Actor
    from broker.protocol.problems import Problem
    from broker.telemetry import set_up_log
    from broker.web.operator import OperationError, failure_of, user_name

    set_up_log(form=config.log.format, level=config.log.level)
    actor = Actor(f"operator:{user_name(os.getuid())}", reason)
    try:
        return asyncio.run(run(config, wanted, actor))
    except StoreLocked as error:
        raise CommandFailed(error.reason, "stop the broker first") from error
    except (OperationError, Problem, Refused, Unreachable, Conflict) as error:
        failure = failure_of(error) or {}
        raise CommandFailed(str(failure.get("error")), failure.get("hint")) from error
