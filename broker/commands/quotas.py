"""Commands about limits: what CAs and policy still let us order."""

from __future__ import annotations

from pathlib import Path

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_table

__all__ = ["quota"]


@click.group("quota")
def quota() -> None:
    """What is left of limits and quotas."""


@quota.command("show", short_help="Show what is left of limits and quotas.")
@click.option("--community", metavar="NAME", help="Those of this community only.")
@click.option("--upstream", metavar="NAME", help="Those of this upstream only.")
@click.option("--limit", type=int, default=100, show_default=True, help="Most rows.")
@config_option
@as_json
def quota_show(
    community: str | None, upstream: str | None, limit: int, config_path: Path, *, is_json: bool
) -> None:
    """Show what is left of limits and quotas, the emptiest first, and how CAs stand.

    What nothing was taken of, or is full again, is not shown.
    """
    given = {"community": community, "upstream": upstream, "limit": limit}
    found = ask(config_path, "quota_show", given)
    if is_json:
        print_json(found)
        return
    print_table(found["buckets"], ["of", "per", "subject", "community", "limit", "left", "full"])
    if found["holds"]:
        click.echo()
        print_table(found["holds"], ["upstream", "about", "until", "reason"])
    if found["left_alone"]:
        click.echo()
        print_table(found["left_alone"], ["upstream", "state", "since", "next_look", "reason"])
