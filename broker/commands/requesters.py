"""Commands about those who ask us: orders, certificates, accounts, binding keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.account_recovery import order_again
from broker.commands.connection import ask
from broker.commands.deliveries import (
    cert_release,
    cert_trace,
    cert_withdraw,
    list_watched,
    watch_options,
)
from broker.commands.evidence import cert_evidence
from broker.commands.options import as_json, config_option, page_options, reason_option
from broker.commands.order_output import print_order
from broker.commands.output import print_json, print_pairs, print_table
from broker.commands.renewals import cert_renewal, cert_retiring

__all__ = ["account", "cert", "eab", "order", "status"]

REVOCATION_REASONS: Final = {
    "unspecified": 0,
    "key-compromise": 1,
    "affiliation-changed": 3,
    "superseded": 4,
    "cessation-of-operation": 5,
    "privilege-withdrawn": 9,
}
"""Reason codes by name (RFC 5280 §5.3.1), those that a requester may give."""


def _show(value: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(value)
    else:
        print_pairs(value)


def _list(rows: Sequence[Any], columns: Sequence[str], *, is_json: bool) -> None:
    if is_json:
        print_json(rows)
    else:
        print_table(rows, columns)


@click.command("status", short_help="Tell how the broker is.")
@config_option
@as_json
def status(config_path: Path, *, is_json: bool) -> None:
    """Tell the version, the policies in force, counts and what is suspended."""
    _show(ask(config_path, "status", {}), is_json=is_json)


# ------------------------------------------------------------------------------------------ orders


@click.group("order", short_help="Look at orders, and hurry those that wait.")
def order() -> None:
    """Look at orders, and hurry those that wait."""


order.add_command(order_again)


@order.command("show")
@click.argument("order_id", metavar="ID")
@config_option
@as_json
def order_show(order_id: str, config_path: Path, *, is_json: bool) -> None:
    """Show an order: what became of it, who decided what, and which lever held its cap."""
    found = ask(config_path, "order_show", {"order_id": order_id})
    if is_json:
        print_json(found)
    else:
        print_order(found)


@order.command("list")
@click.option("--community", metavar="NAME", help="Of this community only.")
@click.option("--account", metavar="ID", help="Of this account only.")
@click.option("--status", metavar="STATUS", help="In this status only.")
@page_options
@config_option
@as_json
def order_list(config_path: Path, *, is_json: bool, **given: Any) -> None:
    """List orders, newest first."""
    columns = ["order", "created", "status", "names", "profile", "upstream", "account"]
    _list(ask(config_path, "order_list", given), columns, is_json=is_json)


@order.command("retry")
@click.argument("order_id", metavar="ID")
@reason_option
@config_option
@as_json
def order_retry(order_id: str, config_path: Path, reason: str | None, *, is_json: bool) -> None:
    """Have an order that waits for its CA go on now, whatever pause it is in."""
    _show(ask(config_path, "order_retry", {"order_id": order_id}, reason), is_json=is_json)


# ------------------------------------------------------------------------------------ certificates


@click.group("cert", short_help="Look at certificates and revoke them.")
def cert() -> None:
    """Look at certificates and revoke them."""


@cert.command("show")
@click.argument("certificate", metavar="ID|FINGERPRINT")
@click.option("--pem", is_flag=True, help="Print the PEM chain alone.")
@config_option
@as_json
def cert_show(certificate: str, config_path: Path, *, pem: bool, is_json: bool) -> None:
    """Show a certificate."""
    found = ask(config_path, "cert_show", {"certificate": certificate})
    if pem:
        click.echo(found["chain_pem"], nl=False)
    else:
        _show(found, is_json=is_json)


@cert.command("list")
@click.option("--community", metavar="NAME", help="Of this community only.")
@watch_options
@page_options
@config_option
@as_json
def cert_list(config_path: Path, *, watched: str | None, is_json: bool, **given: Any) -> None:
    """List certificates, or those among them that need somebody's attention."""
    if watched is not None:
        list_watched(watched, config_path, limit=given["limit"], is_json=is_json)
        return
    columns = ["certificate", "names", "not_after", "upstream", "released", "revoked"]
    _list(ask(config_path, "cert_list", given), columns, is_json=is_json)


@cert.command("revoke")
@click.argument("certificate", metavar="ID|FINGERPRINT")
@click.option(
    "--code",
    type=click.Choice(list(REVOCATION_REASONS)),
    default="unspecified",
    show_default=True,
    help="Reason code that the CA publishes.",
)
@reason_option
@config_option
@as_json
def cert_revoke(
    certificate: str, code: str, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Revoke a certificate at its CA."""
    given = {"certificate": certificate, "code": REVOCATION_REASONS[code]}
    _show(ask(config_path, "cert_revoke", given, reason), is_json=is_json)


cert.add_command(cert_renewal)
cert.add_command(cert_retiring)
cert.add_command(cert_trace)
cert.add_command(cert_evidence)
cert.add_command(cert_release)
cert.add_command(cert_withdraw)

# ---------------------------------------------------------------------------------------- accounts


@click.group("account", short_help="Look at accounts and deactivate them.")
def account() -> None:
    """Look at accounts and deactivate them."""


@account.command("show")
@click.argument("account_id", metavar="ID")
@config_option
@as_json
def account_show(account_id: str, config_path: Path, *, is_json: bool) -> None:
    """Show an account."""
    _show(ask(config_path, "account_show", {"account_id": account_id}), is_json=is_json)


@account.command("list")
@click.option("--community", metavar="NAME", help="Of this community only.")
@page_options
@config_option
@as_json
def account_list(config_path: Path, *, is_json: bool, **given: Any) -> None:
    """List accounts."""
    columns = [
        "account",
        "community",
        "status",
        "owner",
        "owner_by",
        "contacts",
        "eab_key",
        "created",
    ]
    _list(ask(config_path, "account_list", given), columns, is_json=is_json)


@account.command("deactivate")
@click.argument("account_id", metavar="ID")
@reason_option
@config_option
@as_json
def account_deactivate(
    account_id: str, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Deactivate an account for good; its certificates stay as they are."""
    given = {"account_id": account_id}
    _show(ask(config_path, "account_deactivate", given, reason), is_json=is_json)


# ------------------------------------------------------------------------------------ binding keys


@click.group("eab", short_help="Keys that bind new accounts to a requester.")
def eab() -> None:
    """External account binding keys: mint, list and revoke them."""


@eab.command("mint")
@click.option("--community", metavar="NAME", default="default", show_default=True)
@click.option("--label", metavar="TEXT", default="", help="For whom, for people.")
@click.option(
    "--name", "names", metavar="PATTERN", multiple=True, help="Limit to names; may be repeated."
)
@click.option(
    "--profile", "profiles", metavar="NAME", multiple=True, help="Limit to profiles; likewise."
)
@click.option("--expires-in", metavar="DURATION", help="Such as 30d; after it nobody binds it.")
@click.option("--reusable", is_flag=True, help="More than one account may bind it.")
@click.option(
    "--id", "key_id", metavar="KEY", help="Its id, as a policy names it; without it one is drawn."
)
@click.option("--owner", metavar="NAME", default="", help="Who answers for it and its accounts.")
@click.option("--contact", metavar="TEXT", default="", help="How to reach them.")
@reason_option
@config_option
@as_json
def eab_mint(config_path: Path, reason: str | None, *, is_json: bool, **given: Any) -> None:
    """Make a key and print it; its MAC key is shown this once."""
    given |= {"names": list(given["names"]), "profiles": list(given["profiles"])}
    _show(ask(config_path, "eab_mint", given, reason), is_json=is_json)


@eab.command("list")
@click.option("--community", metavar="NAME", help="Of this community only.")
@config_option
@as_json
def eab_list(community: str | None, config_path: Path, *, is_json: bool) -> None:
    """List keys, revoked ones too."""
    columns = [
        "key_id", "community", "label", "owner", "owner_by", "names", "profiles", "account",
        "revoked",
    ]  # fmt: skip
    _list(ask(config_path, "eab_list", {"community": community}), columns, is_json=is_json)


@eab.command("revoke")
@click.argument("key_id", metavar="KEY")
@click.option("--community", metavar="NAME", default="default", show_default=True)
@reason_option
@config_option
@as_json
def eab_revoke(
    key_id: str, community: str, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Revoke a key: nobody binds it again, and its accounts order nothing more."""
    given = {"key_id": key_id, "community": community}
    _show(ask(config_path, "eab_revoke", given, reason), is_json=is_json)
