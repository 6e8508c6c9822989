"""Commands about mass replacement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["incident"]

F = TypeVar("F", bound=Callable[..., Any])

SELECTORS: Final = {
    "issuer": "From this issuing CA: its common name, or its key identifier in hex.",
    "key": "With this public key: SHA-256 of its SubjectPublicKeyInfo in hex.",
    "node": "At this node.",
    "profile": "Of this profile.",
    "upstream": "From this upstream.",
    "community": "Of this community.",
    "after": "Issued at this date or later.",
    "before": "Issued before this date.",
}
"""Each option that selects, with what it selects."""


def selecting(command: F) -> F:
    """Add the options that select certificates, and the clock."""
    command = click.option(
        "--deadline", metavar="24h|5d", help="How long there is until all has to be replaced."
    )(command)
    for name, text in reversed(SELECTORS.items()):
        metavar = "DATE" if name in ("after", "before") else name.upper()
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


@click.group("incident", short_help="Replace many certificates by a deadline.")
def incident() -> None:
    """Replace many certificates by a deadline: select, replace, see served, revoke."""


@incident.command("plan", short_help="Show what would be replaced, and by when.")
@selecting
@config_option
@as_json
def incident_plan(
    deadline: str | None, config_path: Path, *, is_json: bool, **select: str | None
) -> None:
    """Show what would be replaced and by when, and do nothing."""
    given = {"select": _named(select), "deadline": deadline}
    _print(ask(config_path, "incident_plan", given), is_json=is_json)


@incident.command("start", short_help="Replace what is selected.")
@selecting
@click.option(
    "--code", type=int, default=4, show_default=True, help="Reason of revocation, RFC 5280 §5.3.1."
)
@click.option("--at-once", type=int, metavar="N", help="Replacements ordered at once.")
@click.option("--explanation", metavar="URL", help="Page that clients are told, RFC 9773 §4.2.")
@reason_option
@config_option
@as_json
def incident_start(
    config_path: Path,
    *,
    deadline: str | None,
    code: int,
    at_once: int | None,
    explanation: str | None,
    reason: str | None,
    is_json: bool,
    **select: str | None,
) -> None:
    """Replace what is selected at nodes, and revoke each once its successor is seen served.

    Clients that renew by themselves are told to do it now; theirs are listed and not revoked.
    """
    given = {
        "select": _named(select),
        "deadline": deadline,
        "code": code,
        "at_once": at_once,
        "explanation": explanation,
    }
    _print(ask(config_path, "incident_start", given, reason), is_json=is_json)


@incident.command("list", short_help="List mass replacements.")
@config_option
@as_json
def incident_list(config_path: Path, *, is_json: bool) -> None:
    """List mass replacements, the newest first."""
    found = ask(config_path, "incident_list", {})
    if is_json:
        print_json(found)
        return
    columns = ["incident", "status", "started", "deadline", "certificates", "revoked", "left"]
    print_table(found, [*columns, "left_to_clients"])


@incident.command("show", short_help="Show how far one is.")
@click.argument("incident_id", metavar="INCIDENT")
@config_option
@as_json
def incident_show(incident_id: str, config_path: Path, *, is_json: bool) -> None:
    """Show how far one is, and what is left of it."""
    _print(ask(config_path, "incident_show", {"incident": incident_id}), is_json=is_json)


def _changing(name: str, short: str, text: str) -> None:
    @incident.command(name, short_help=short, help=text)
    @click.argument("incident_id", metavar="INCIDENT")
    @reason_option
    @config_option
    @as_json
    def change(incident_id: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
        found = ask(config_path, f"incident_{name}", {"incident": incident_id}, reason)
        _print(found, is_json=is_json)


_changing("pause", "Begin nothing more.", "Begin nothing more of it; what is under way goes on.")
_changing("resume", "Go on with one that was paused.", "Go on with one that was paused.")
_changing(
    "abandon", "End it with whatever is left.", "End it with whatever is left; nothing is undone."
)


def _named(select: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in select.items() if value is not None}


def _print(found: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(found)
    else:
        print_pairs(found)
