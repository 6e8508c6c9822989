"""Commands about the keys of our accounts at CAs: a new one, and how old they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.authorities import upstream
from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table
from broker.protocol.problems import printable

__all__ = ["upstream"]


@upstream.command("show")
@click.argument("name")
@config_option
@as_json
def upstream_show(name: str, config_path: Path, *, is_json: bool) -> None:
    """Show an upstream with our accounts there, and how old their keys are."""
    shown = ask(config_path, "upstream_show", {"upstream": name})
    if is_json:
        print_json(shown)
    else:
        print_pairs(shown)


@upstream.command("rotate-key")
@click.argument("name")
@click.option("--community", metavar="NAME", help="For this community only.")
@reason_option
@config_option
@as_json
def upstream_rotate_key(
    name: str, community: str | None, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Give our account at a CA a new key; orders that are under way go on.

    The key is made where the configuration keeps it: in Vault the next version, after which those
    before it sign no more; otherwise in a file, and the old one stays in its file. The CA is asked
    which key it knows whenever that is in doubt, also after a crash.
    """
    given = {"upstream": name, "community": community}
    rows: list[dict[str, Any]] = ask(config_path, "upstream_rotate_key", given, reason)
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["upstream", "community", "url", "key", "thumbprint"])
    for row in rows:
        if row.get("not_retired"):
            why = printable(str(row["not_retired"]))
            said = f"versions before {row['key']} may still sign, tried again by itself: {why}"
            click.echo(f"penstock: warning: {said}", err=True)
