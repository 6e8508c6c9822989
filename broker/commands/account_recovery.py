"""Commands about accounts of ours at CAs that are lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from broker.commands.adoption import upstream
from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["order_again", "upstream"]


@upstream.command("recover")
@click.argument("name")
@click.option("--community", metavar="NAME", help="For this community only.")
@click.option("--agree-to-terms", is_flag=True, help="Agree to the CA's terms of service.")
@click.option("--dry-run", is_flag=True, help="Say what is wrong and what would be done.")
@reason_option
@config_option
@as_json
def upstream_recover(
    name: str,
    community: str | None,
    reason: str | None,
    config_path: Path,
    *,
    agree_to_terms: bool,
    dry_run: bool,
    is_json: bool,
) -> None:
    """Recover our account at a CA: by its right key if that is to be found, else by a new account.

    Nothing is done where nothing is lost, or where Vault or the CA cannot be asked. Orders that
    wait go on by themselves. It can be run again after being cut off anywhere.
    """
    given = {
        "upstream": name,
        "community": community,
        "agree_to_terms": agree_to_terms,
        "dry_run": dry_run,
    }
    rows = ask(config_path, "upstream_recover", given, reason)
    if is_json:
        print_json(rows)
        return
    for row in rows:
        _tell(row)


@upstream.command("former")
@click.argument("name", required=False)
@config_option
@as_json
def upstream_former(name: str | None, config_path: Path, *, is_json: bool) -> None:
    """List accounts that were ours at CAs and are replaced, newest first."""
    rows = ask(config_path, "upstream_former", {"upstream": name})
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["upstream", "community", "url", "until", "cause"])


@click.command("again", short_help="Order anew what a lost account may have got.")
@click.argument("order", metavar="ORDER")
@reason_option
@config_option
@as_json
def order_again(order: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Order anew what was finalized under an account that is gone.

    Its certificate may exist, and nobody can fetch it: a second one for the same key may come of
    this.
    """
    done = ask(config_path, "order_again", {"order_id": order}, reason)
    if is_json:
        print_json(done)
    else:
        print_pairs(done)


def _tell(row: Mapping[str, Any]) -> None:
    """Print what was found, what was done, and what is left to a person."""
    shown = ("upstream", "community", "cause", "why", "url", "since", "remedy", "done")
    print_pairs({name: row[name] for name in shown})
    if row["account"] is not None:
        print_pairs({"account now": row["account"]["url"], "key now": row["key"]})
    if row["orders_begun_anew"]:
        print_pairs({"orders begun anew": row["orders_begun_anew"]})
    if row["orders_undecided"]:
        print_pairs({"orders to decide": row["orders_undecided"]})
        click.echo("  a certificate may exist that only the old account could fetch; to order")
        click.echo("  anew all the same: penstock order again ORDER")
    caa = row["caa"]
    if caa is not None:
        click.echo(f"CAA: {caa['note']}")
        for line in caa["lines"]:
            click.echo(line)
    if row["certificates_in_force"]:
        click.echo(f"certificates of the old account in force: {row['certificates_in_force']}")
        print_table(row["certificates"], ["certificate", "names", "not_after", "serial"])
        click.echo("each can still be revoked:")
        for way in row["revocation"]:
            click.echo(f"  - {way}")
