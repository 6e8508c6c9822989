"""Commands about rollout groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["rollout"]


@click.group("rollout", short_help="Waves of certificates over groups of nodes.")
def rollout() -> None:
    """Waves of certificates over groups of nodes, and what halts them."""


@rollout.command("list", short_help="List rollout groups.")
@config_option
@as_json
def rollout_list(config_path: Path, *, is_json: bool) -> None:
    """List rollout groups with where their waves stand."""
    found = ask(config_path, "rollout_list", {})
    if is_json:
        print_json(found)
        return
    print_table(found, ["group", "status", "under_way", "waiting", "failures", "opens", "why"])


@rollout.command("show", short_help="Show one rollout group.")
@click.argument("group")
@config_option
@as_json
def rollout_show(group: str, config_path: Path, *, is_json: bool) -> None:
    """Show a group with its canaries, who is under way, and who waits for what."""
    _print(ask(config_path, "rollout_show", {"group": group}), is_json=is_json)


@rollout.command("halt", short_help="Push nothing more to a group.")
@click.argument("group")
@reason_option
@config_option
@as_json
def rollout_halt(group: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Push nothing more to a group until it is resumed; what is under way goes on."""
    _print(ask(config_path, "rollout_halt", {"group": group}, reason), is_json=is_json)


@rollout.command("resume", short_help="Let a halted group go on.")
@click.argument("group")
@reason_option
@config_option
@as_json
def rollout_resume(group: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Begin a halted group's wave anew, with its canaries first."""
    _print(ask(config_path, "rollout_resume", {"group": group}, reason), is_json=is_json)


def _print(found: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(found)
    else:
        print_pairs(found)
