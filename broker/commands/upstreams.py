"""Further commands about upstreams: our account there, and who may issue for our names."""

from __future__ import annotations

from pathlib import Path

import click

from broker.commands.account_recovery import upstream
from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json

__all__ = ["upstream"]


@upstream.command("caa")
@click.argument("name")
@click.option("--community", metavar="NAME", help="For our account for this community only.")
@click.option(
    "--name",
    "names",
    metavar="DOMAIN",
    multiple=True,
    help="For this domain; without it: for those that policy allows. May be repeated.",
)
@click.option("--iodef", metavar="URL", help="Where a CA may report refused requests.")
@config_option
@as_json
def upstream_caa(
    name: str,
    community: str | None,
    names: tuple[str, ...],
    iodef: str | None,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Print the CAA records that keep everybody out but our account at a CA.

    Every other CA is kept out as well: where several upstreams may issue for a domain, publish the
    records of each beside those of the others.
    """
    given = {"upstream": name, "community": community, "names": list(names), "iodef": iodef}
    rows = ask(config_path, "upstream_caa", given)
    if is_json:
        print_json(rows)
        return
    for community_name in dict.fromkeys(row["community"] for row in rows):
        print(f"; upstream {name}, community {community_name}")
        for row in rows:
            if row["community"] == community_name:
                print(row["line"])
