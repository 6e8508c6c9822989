"""Commands about who answers for accounts, binding keys and nodes."""

from __future__ import annotations

from pathlib import Path

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["owner"]

_limit = click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Most rows."
)
_community = click.option("--community", metavar="NAME", help="Of this community only.")


@click.group("owner", short_help="Who answers for accounts, EAB keys and nodes.")
def owner() -> None:
    """Who answers for accounts, EAB keys and nodes, and how to reach them.

    An account has the owner of the EAB key or node that it came by, unless it was given its own.
    """


@owner.command("list")
@click.argument("text", required=False)
@_community
@_limit
@config_option
@as_json
def owner_list(
    text: str | None, community: str | None, limit: int, config_path: Path, *, is_json: bool
) -> None:
    """List owners, those whose name or contact contains TEXT, with how much they answer for.

    The row without a name is what nobody answers for.
    """
    given = {"text": text, "community": community, "limit": limit}
    rows = ask(config_path, "owner_list", given)
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["owner", "contacts", "accounts", "eab_keys", "nodes"])


@owner.command("show")
@click.argument("name", metavar="OWNER")
@_community
@_limit
@config_option
@as_json
def owner_show(
    name: str, community: str | None, limit: int, config_path: Path, *, is_json: bool
) -> None:
    """Show everything that OWNER answers for or is the contact of, '' for what nobody does, and
    the certificates of those accounts that are valid now."""
    given = {"owner": name, "community": community, "limit": limit}
    found = ask(config_path, "owner_show", given)
    if is_json:
        print_json(found)
        return
    columns = ["what", "name", "id", "community", "status", "owner", "contact", "by"]
    print_table(found["things"], columns)
    if found["certificates"]:
        click.echo()
        print_table(found["certificates"], ["certificate", "names", "not_after", "account"])


@owner.command("set")
@click.argument("kind", type=click.Choice(["account", "eab", "node"]))
@click.argument("name", metavar="NAME|ID")
@click.option("--owner", "named", metavar="NAME", required=True, help="Who; '' for nobody.")
@click.option("--contact", metavar="TEXT", default="", help="How to reach them.")
@click.option(
    "--community", metavar="NAME", help="Of an EAB key: its community.  [default: default]"
)
@reason_option
@config_option
@as_json
def owner_set(
    kind: str,
    name: str,
    community: str | None,
    reason: str | None,
    config_path: Path,
    *,
    named: str,
    contact: str,
    is_json: bool,
) -> None:
    """Name who answers for an account, an EAB key or a node."""
    if community is not None and kind != "eab":
        raise click.UsageError("--community goes with an EAB key alone")
    given: dict[str, object] = {kind: name, "owner": named, "contact": contact}
    if community is not None:
        given["community"] = community
    found = ask(config_path, "owner_set", given, reason)
    if is_json:
        print_json(found)
    else:
        print_pairs(found)
