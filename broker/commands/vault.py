"""``penstock vault``: what the broker needs in Vault, for the people who set that up."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from broker.commands.failures import readable
from broker.commands.options import config_option

__all__ = ["vault"]


@click.group("vault", short_help="What the broker needs in Vault.")
def vault() -> None:
    """HashiCorp Vault, which keeps keys and secrets."""


@vault.command("setup")
@click.option("--print", "is_printed", is_flag=True, help="Print it; nothing is done to Vault.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["commands", "hcl"]),
    default="commands",
    show_default=True,
    help="A shell script of vault commands, or its policies alone.",
)
@click.option(
    "--with-import",
    is_flag=True,
    help="Let existing keys be imported, too: for upstream move-key --import-existing.",
)
@click.option(
    "--also",
    metavar="MOUNT/NAME",
    multiple=True,
    help="A key that lies elsewhere than the configuration says by now; may be repeated.",
)
@click.option(
    "--service-account",
    metavar="NAMESPACE/NAME",
    default="penstock/penstock",
    show_default=True,
    help="Who logs in by Kubernetes.",
)
@click.option(
    "--audience",
    metavar="NAME",
    default="vault",
    show_default=True,
    help="Audience of its projected token.",
)
@config_option
def setup(
    config_path: Path,
    form: Literal["commands", "hcl"],
    also: tuple[str, ...],
    service_account: str,
    audience: str,
    *,
    is_printed: bool,
    with_import: bool,
) -> None:
    """Write down which engines, policies and roles the configuration needs in Vault.

    It is for the security team to review and to run. Nothing secret stands in it, and Vault is not
    asked: `penstock check` tells afterwards whether it all fits.
    """
    from broker.app.vault_script import Wishes, write_policies, write_script
    from broker.app.vault_setup import plan_setup
    from broker.config import load_config

    if not is_printed:
        raise click.UsageError("nothing is done to Vault from here, say --print")
    if "/" not in service_account:
        raise click.UsageError(f"--service-account '{service_account}' is not NAMESPACE/NAME")
    with readable():
        config = load_config(config_path)
        planned = plan_setup(config, with_import=with_import, also=also)
    if form == "hcl":
        click.echo(write_policies(planned), nl=False)
        return
    wishes = Wishes(service_account=service_account, audience=audience)
    click.echo(write_script(planned, of=config.external_url, wishes=wishes), nl=False)
