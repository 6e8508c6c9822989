"""Commands about nodes with agents: ``penstock node``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, page_options, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["node"]


@click.group("node", short_help="Nodes with agents, and how they are let in.")
def node() -> None:
    """Nodes with agents: let them in, look at them, drain and revoke them."""


def _show(value: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(value)
    else:
        print_pairs(value)


def _list(rows: Any, columns: list[str], *, is_json: bool) -> None:
    if is_json:
        print_json(rows)
    else:
        print_table(rows, columns)


def _grant_options(command: Any) -> Any:
    """Add the options that say what a node may be."""
    options = (
        click.option("--community", metavar="NAME", default="default", show_default=True),
        click.option(
            "--name",
            "names",
            metavar="PATTERN",
            multiple=True,
            help="Names that it may have; may be repeated.  Without: what the policy says.",
        ),
        click.option(
            "--profile", "profiles", metavar="NAME", multiple=True, help="Profiles; likewise."
        ),
        click.option("--owner", metavar="TEXT", default="", help="Whose node it is."),
        click.option("--contact", metavar="TEXT", default="", help="Whom to tell about it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


# ------------------------------------------------------------------------------------------ tokens


@node.command("token")
@click.option("--node", metavar="NAME", help="The one node that may join by it.")
@click.option("--nodes", metavar="PATTERN", help="Any one node whose name fits, instead.")
@_grant_options
@click.option("--expires-in", metavar="DURATION", help="Such as 2h.  [default: 24h]")
@click.option("--list", "is_list", is_flag=True, help="List tokens instead of making one.")
@click.option("--revoke", "token_id", metavar="ID", help="Revoke this one instead.")
@reason_option
@config_option
@as_json
def node_token(
    config_path: Path,
    reason: str | None,
    token_id: str | None,
    *,
    is_json: bool,
    is_list: bool,
    **given: Any,
) -> None:
    """Make a token that one node joins by, and print it; it is shown this once."""
    if is_list:
        columns = ["token_id", "for", "community", "owner", "expires", "used", "revoked"]
        _list(ask(config_path, "node_tokens", {}), columns, is_json=is_json)
        return
    if token_id is not None:
        revoked = ask(config_path, "node_token_revoke", {"token_id": token_id}, reason)
        _show(revoked, is_json=is_json)
        return
    if (given["node"] is None) == (given["nodes"] is None):
        raise click.UsageError("Give --node or --nodes.")
    given |= {"names": list(given["names"]), "profiles": list(given["profiles"])}
    _show(ask(config_path, "node_token", given, reason), is_json=is_json)


# ---------------------------------------------------------------------------------------- requests


@node.command("requests")
@config_option
@as_json
def node_requests(config_path: Path, *, is_json: bool) -> None:
    """List nodes that ask to be let in, newest first; compare the key with what the agent shows."""
    columns = ["request", "node", "key", "status", "created", "facts"]
    _list(ask(config_path, "node_requests", {}), columns, is_json=is_json)


@node.command("approve")
@click.argument("request_id", metavar="REQUEST")
@_grant_options
@reason_option
@config_option
@as_json
def node_approve(config_path: Path, reason: str | None, *, is_json: bool, **given: Any) -> None:
    """Let the node of a request in."""
    given |= {"names": list(given["names"]), "profiles": list(given["profiles"])}
    _show(ask(config_path, "node_approve", given, reason), is_json=is_json)


@node.command("deny")
@click.argument("request_id", metavar="REQUEST")
@reason_option
@config_option
@as_json
def node_deny(request_id: str, config_path: Path, reason: str | None, *, is_json: bool) -> None:
    """Refuse a request."""
    _show(ask(config_path, "node_deny", {"request_id": request_id}, reason), is_json=is_json)


# ------------------------------------------------------------------------------------------- nodes


@node.command("list")
@click.option("--status", metavar="STATUS", help="active, drained or revoked.")
@page_options
@config_option
@as_json
def node_list(config_path: Path, *, is_json: bool, **given: Any) -> None:
    """List nodes by name."""
    columns = ["node", "community", "status", "connected", "seen", "owner", "owner_by", "contact"]
    _list(ask(config_path, "node_list", given), columns, is_json=is_json)


@node.command("show")
@click.argument("name", metavar="NAME|ID")
@config_option
@as_json
def node_show(name: str, config_path: Path, *, is_json: bool) -> None:
    """Show a node."""
    _show(ask(config_path, "node_show", {"node": name}), is_json=is_json)


@node.command("drain")
@click.argument("name", metavar="NAME|ID")
@reason_option
@config_option
@as_json
def node_drain(name: str, config_path: Path, reason: str | None, *, is_json: bool) -> None:
    """Tell a node nothing new; it keeps what it has and stays connected."""
    _show(ask(config_path, "node_drain", {"node": name}, reason), is_json=is_json)


@node.command("resume")
@click.argument("name", metavar="NAME|ID")
@reason_option
@config_option
@as_json
def node_resume(name: str, config_path: Path, reason: str | None, *, is_json: bool) -> None:
    """Serve a drained node again."""
    _show(ask(config_path, "node_resume", {"node": name}, reason), is_json=is_json)


@node.command("revoke")
@click.argument("name", metavar="NAME|ID")
@reason_option
@config_option
@as_json
def node_revoke(name: str, config_path: Path, reason: str | None, *, is_json: bool) -> None:
    """Make a node a stranger for good: its connection ends and its account is closed."""
    _show(ask(config_path, "node_revoke", {"node": name}, reason), is_json=is_json)
