"""``penstock serve`` and ``penstock demo``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import config_option, last_good_option

__all__ = ["demo", "serve"]


@click.command("serve", short_help="Run the broker until it is told to stop.")
@config_option
@click.option(
    "--follow",
    is_flag=True,
    help="Take changes of the configuration up as they are made, not on SIGHUP alone.",
)
@click.option(
    "--linger",
    metavar="SECONDS",
    type=click.IntRange(min=0),
    default=0,
    help="Serve on for so long after SIGTERM, until whoever leads clients here has heard of it.",
)
@last_good_option
def serve(config_path: Path, *, follow: bool, linger: int, last_good: Path | None) -> None:
    """Run the broker until SIGTERM or SIGINT.

    Clients that are being answered then have 15 seconds to get their answer. On SIGHUP policies,
    people and the configuration are read again; what is refused changes nothing, and 'penstock
    status' tells why.
    """
    from broker.app import StoreLocked, begin_with, run_to_end
    from broker.app import serve as run
    from broker.app.memory import hold_memory_apart
    from broker.config import load_all
    from broker.issuance.errors import Unreachable
    from broker.policy.yamlfile import Faults
    from broker.telemetry import set_up_log

    hold_memory_apart()
    with readable():
        begun = begin_with(config_path, is_following=follow, last_good=last_good)
        first = replace(begun, linger=timedelta(seconds=linger))
        log = first.reading.config.log
        set_up_log(form=log.format, level=log.level)
        try:
            run_to_end(run(first))
        except (StoreLocked, Unreachable) as error:
            raise CommandFailed(error.reason) from error
        except Faults:
            load_all(config_path)  # tells the same faults with the lines of the configuration
            raise


@click.command("demo", short_help="Show one order through both halves.")
@click.option(
    "--certbot",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The certbot that plays the client.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the demonstration's files here instead of throwing them away.",
)
def demo(certbot: Path, directory: Path | None) -> None:
    """Show one order through both halves: a broker, a CA behind it, a client, a TLS server.

    Everything runs on loopback and ends with the command. `make demo` brings certbot along.
    """
    from broker.demo import DemoFailed, run_demo

    try:
        asyncio.run(run_demo(directory, certbot=certbot, say=click.echo))
    except DemoFailed as error:
        raise CommandFailed(str(error)) from error
