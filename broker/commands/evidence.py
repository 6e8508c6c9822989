"""``penstock cert evidence``: one certificate as an auditor asks about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["cert_evidence"]

_COLUMNS: Final = {
    "approvals": ["record", "at", "kind", "actor", "reason", "evidence"],
    "signatures": ["record", "at", "key", "vault_request"],
}


@click.command("evidence", short_help="All that is known about a certificate, for an auditor.")
@click.argument("certificate", metavar="SERIAL")
@config_option
@as_json
def cert_evidence(certificate: str, config_path: Path, *, is_json: bool) -> None:
    """Tell who asked for a certificate, what decided, what was proven, who signed, where it went.

    Each event stands with its place in the audit chain. SERIAL is in hexadecimal; an id or a
    fingerprint will do.
    """
    found = ask(config_path, "cert_evidence", {"certificate": certificate})
    if is_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    parts = (
        ("certificate", "CERTIFICATE"),
        ("requester", "WHO ASKED"),
        ("request", "WHAT WAS ASKED"),
        ("decided_at_order", "WHAT DECIDED, AT THE ORDER"),
        ("decided_at_finalize", "WHAT DECIDED, AT FINALIZE"),
        ("upstream", "WHICH CA"),
    )
    for name, title in parts:
        _head(title)
        print_pairs(found[name] or {"": "nothing is known"})
    _head("WHAT WAS PROVEN")
    for proof in found["proofs"]:
        print_pairs(proof)
    lists = (
        ("approvals", "WHO APPROVED"),
        ("signatures", "WHAT VAULT SIGNED"),
        ("deliveries", "WHERE IT WENT"),
        ("revocation", "HOW IT ENDED"),
    )
    for name, title in lists:
        _head(title)
        columns = _COLUMNS.get(name, ["record", "at", "kind", "actor", "reason"])
        if found[name]:
            shown = [
                {"evidence": one.get("data", {}).get("evidence"), **one} for one in found[name]
            ]
            print_table(shown, columns)
        else:
            click.echo("nothing")
    _head("RECORDS IN THE CHAIN")
    print_table(found["records"], ["record", "at", "kind", "actor", "reason", "digest"])
    covering = found["chain"]["covered_by"]
    if covering is None:
        click.echo("no checkpoint covers the last of them yet")
    else:
        click.echo(f"covered by checkpoint {covering['number']}, {covering['at']}:")
        click.echo(covering["jws"])


def _head(title: str) -> None:
    click.echo(f"\n== {title}")
