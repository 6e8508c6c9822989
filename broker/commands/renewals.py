"""Commands about renewal: when clients are told to renew, and what is to be retired."""

from __future__ import annotations

from pathlib import Path

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["cert_renewal", "cert_retiring"]


@click.command("renewal", short_help="Tell when a certificate is to be renewed.")
@click.argument("certificate", metavar="ID|FINGERPRINT")
@click.option("--ask", "is_asking", is_flag=True, help="Ask its CA now, before it is due.")
@config_option
@as_json
def cert_renewal(certificate: str, config_path: Path, *, is_asking: bool, is_json: bool) -> None:
    """Tell when clients are told to renew a certificate, what its CA says, and who replaces it."""
    command = "cert_renewal_ask" if is_asking else "cert_renewal"
    found = ask(config_path, command, {"certificate": certificate})
    if is_json:
        print_json(found)
    else:
        print_pairs(found)


@click.command("retiring", short_help="List certificates with a retirement date.")
@click.option("--status", metavar="STATUS", help="waiting, overdue, replaced or retired.")
@click.option("--limit", type=int, default=100, show_default=True, help="Most rows.")
@config_option
@as_json
def cert_retiring(status: str | None, limit: int, config_path: Path, *, is_json: bool) -> None:
    """List certificates that are longer than their cap, the soonest retirement date first."""
    found = ask(config_path, "cert_retiring", {"status": status, "limit": limit})
    if is_json:
        print_json(found)
        return
    columns = ["certificate", "retires", "status", "names", "upstream", "replaced_by"]
    print_table(found, columns)
