"""Commands that stop issuance and let it go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ask as ask_broker
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["freeze", "frozen", "unfreeze"]

KINDS: Final = ("community", "account", "eab", "node", "upstream")
"""What can be frozen, as arguments of the command are called."""

_kind = click.argument("kind", type=click.Choice(KINDS), metavar="|".join(KINDS))
_name = click.argument("name", metavar="NAME|ID")
_community = click.option("--community", metavar="NAME", help="Of an EAB key: its community.")
_reason = click.option(
    "--reason", metavar="TEXT", required=True, help="Why; kept with the event, told to nobody."
)


def _given(kind: str, name: str, community: str | None) -> dict[str, object]:
    if community is not None and kind != "eab":
        raise click.UsageError("--community goes with an EAB key alone")
    given: dict[str, object] = {kind: name}
    if community is not None:
        given["community"] = community
    return given


@click.command("freeze", short_help="Stop issuance; reads and revocations go on.")
@_kind
@_name
@_community
@_reason
@click.option("--until", metavar="WHEN", help="Ends by itself: 2h from now, or a time in UTC.")
@click.option("--tell", metavar="TEXT", help="What clients are told of why; else nothing.")
@click.option(
    "--ask", metavar="WHOM", help="Whom clients are told to ask.  [default: the configuration's]"
)
@config_option
@as_json
def freeze(
    kind: str,
    name: str,
    community: str | None,
    reason: str,
    config_path: Path,
    *,
    until: str | None,
    tell: str | None,
    ask: str | None,
    is_json: bool,
) -> None:
    """Stop issuance for a community, an account, an EAB key, a node or an upstream.

    It holds at once and over restarts, until it is lifted. Certificates are still handed out and
    revoked. Orders that were not sent to their CA yet wait; where an upstream is frozen they go to
    the next one that policy lets them have. What is frozen already is frozen as said now.
    """
    given = _given(kind, name, community)
    given |= {"until": until, "tell": tell, "ask": ask}
    _show(ask_broker(config_path, "freeze", given, reason), is_json=is_json)


@click.command("unfreeze", short_help="Let what is frozen go on.")
@_kind
@_name
@_community
@_reason
@config_option
@as_json
def unfreeze(
    kind: str, name: str, community: str | None, reason: str, config_path: Path, *, is_json: bool
) -> None:
    """Let what is frozen go on; orders that waited do so at once."""
    given = _given(kind, name, community)
    _show(ask_broker(config_path, "unfreeze", given, reason), is_json=is_json)


@click.command("frozen", short_help="List what is frozen.")
@config_option
@as_json
def frozen(config_path: Path, *, is_json: bool) -> None:
    """List what is frozen, since when, by whom and why, the newest first."""
    found = ask_broker(config_path, "frozen", {})
    if is_json:
        print_json(found)
    else:
        print_table(found, ["what", "name", "community", "since", "until", "by", "reason"])


def _show(value: Mapping[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json(value)
    else:
        print_pairs(value)
