"""``penstock policy status``, ``reload``, ``history``: what is in force, and since when."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ask
from broker.commands.failures import CommandFailed
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["history", "reload", "status"]

KEPT: Final = "the store, since the files were refused when the broker started"


@click.command("status", short_help="Tell which policies are in force.")
@config_option
@as_json
def status(config_path: Path, *, is_json: bool) -> None:
    """Tell which policies are in force since when, and why the files that lie there are not.

    Exit status: 0 when the files are in force, 1 when they are refused.
    """
    _tell(ask(config_path, "policy_status", {}), is_json=is_json)


@click.command("reload", short_help="Take changed policy files now.")
@reason_option
@config_option
@as_json
def reload(reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Read the policy files now instead of at the next look, and tell what came of it.

    What was refused is tried again. Exit status: 0 when the files are in force, 1 when they are
    refused.
    """
    _tell(ask(config_path, "policy_reload", {}, reason), is_json=is_json)


@click.command("history", short_help="List the policies that were in force.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Most rows."
)
@click.option(
    "--export",
    "export",
    metavar="SHA256 DIRECTORY",
    nargs=2,
    help="Write the files of that set into a new directory.",
)
@config_option
@as_json
def history(
    limit: int, export: tuple[str, str] | None, config_path: Path, *, is_json: bool
) -> None:
    """List the sets of policies that came into force or were refused, the latest first.

    The files of the last 50 that were in force are kept: --export writes a set out, for looking at,
    for 'policy diff', or for putting it back.
    """
    if export is not None:
        _export(ask(config_path, "policy_set", {"sha256": export[0]}), Path(export[1]))
        return
    found = ask(config_path, "policy_history", {"limit": limit})
    if is_json:
        print_json(found)
        return
    rows = [
        {
            **row,
            "sha256": (row["sha256"] or "")[:16],
            "faults": _first(row["faults"]),
            "signers": ", ".join(row["signers"]),
        }
        for row in found
    ]
    print_table(rows, ["at", "outcome", "sha256", "version", "signers", "by", "reason", "faults"])


def _first(faults: list[str]) -> str:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return faults[0] + more if faults else ""


def _export(found: dict[str, Any], directory: Path) -> None:
    contents = {name: text.encode() for name, text in found["texts"].items()}
    contents |= {name: base64.b64decode(text) for name, text in found["bundle"].items()}
    for name in contents:
        # Another machine may have said it: nothing is written elsewhere than was asked for.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CommandFailed(f"the set has a file named {name[:100]!a}, which is not written")
    try:
        directory.mkdir(parents=True)
        for name, octets in sorted(contents.items()):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(octets)
    except FileExistsError as error:
        raise CommandFailed(f"{directory} is there already", "name a new directory") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{directory} cannot be written: {reason}") from error
    click.echo(f"{len(contents)} files of set {found['sha256']} in {directory}")


def _in_force(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is in force, with where the broker has it from in words."""
    told = dict(found)
    is_kept = told.pop("is_kept_set", None)
    if is_kept is not None:
        told["taken_from"] = KEPT if is_kept else "the files"
    return told


def _tell(found: dict[str, Any], *, is_json: bool) -> None:
    refused = found["refused"]
    if is_json:
        print_json(found)
    else:
        told = {name: held for name, held in found.items() if name != "refused"}
        print_pairs({**told, "in_force": _in_force(found["in_force"])})
        for fault in refused["faults"] if refused is not None else ():
            click.echo(fault, err=True)
    if refused is not None:
        count = len(refused["faults"])
        what = "1 fault" if count == 1 else f"{count} faults"
        raise CommandFailed(
            f"the policy files are refused for {what}; those of "
            f"{found['in_force']['since']} stay in force",
            None if refused["is_tried_again"] else "mend them: they are read again by themselves",
        )
