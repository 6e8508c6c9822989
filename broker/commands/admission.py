"""``penstock admission``: the webhook that puts agents into the pods of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from broker.commands.failures import CommandFailed, readable

__all__ = ["admission"]

DEFAULT_CONFIG: Final = "/etc/penstock/admission/admission.yaml"


@click.command("admission", short_help="Put agents into the pods of a cluster.")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PENSTOCK_ADMISSION_CONFIG",
    default=Path(DEFAULT_CONFIG),
    help=f"Its file, also PENSTOCK_ADMISSION_CONFIG.  [default: {DEFAULT_CONFIG}]",
)
def admission(config_path: Path) -> None:
    """Answer the API server of a cluster until SIGTERM or SIGINT.

    Pods whose annotations ask for it get an agent, for the names that policy grants them; others
    are told why not. Runs in the cluster beside the broker, in as many replicas as you like.
    """
    from broker.app.admission import serve_admission
    from broker.app.looping import run_to_end
    from broker.config.admission import load_admission
    from broker.issuance.errors import Unreachable
    from broker.telemetry import set_up_log

    with readable():
        config = load_admission(config_path)
        set_up_log(form=config.log.format, level=config.log.level)
        try:
            run_to_end(serve_admission(config))
        except Unreachable as error:
            raise CommandFailed(error.reason) from error
