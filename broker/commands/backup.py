"""``penstock backup``, ``penstock restore`` and ``penstock reconcile``.

A backup is made by the command itself, beside the broker and without its help: the broker's event
loop and its clients notice nothing.  It only keeps that a backup was made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask, working
from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs

__all__ = ["backup", "reconcile", "restore"]


_passphrase_option = click.option(
    "--passphrase",
    "passphrase_at",
    metavar="REFERENCE",
    help="Where the key passphrase lies, file:/PATH or env:NAME.  [default: as configured]",
)


class _NotReconciled(CommandFailed):
    """Something stands in the way, and a person has to look at it."""

    exit_code = 3


@click.group("backup", short_help="Back the broker up while it works.", invoke_without_command=True)
@click.option(
    "--output",
    metavar="FILE|DIR",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The file to make, or a directory for it.  [default: the working directory]",
)
@_passphrase_option
@reason_option
@config_option
@as_json
@click.pass_context
def backup(
    ctx: click.Context,
    output: Path,
    passphrase_at: str | None,
    config_path: Path,
    reason: str | None,
    *,
    is_json: bool,
) -> None:
    """Back the store, the keys and the CA files up into one sealed file, while the broker works.

    The file is sealed under the key passphrase, which is not in it: keep that somewhere else.
    """
    if ctx.invoked_subcommand is not None:
        return
    from importlib.metadata import version

    from broker.clock import SystemClock
    from broker.operations.backup import make_backup, manifest_view

    config, passphrase = _opened(config_path, passphrase_at)
    with working("backup …"), _failing():
        made = make_backup(
            config.state,
            output.absolute(),
            passphrase=passphrase,
            version=version("penstock"),
            now=SystemClock().now(),
        )
    view = {"file": str(made.path), "file_bytes": made.size, **manifest_view(made.manifest)}
    view["skipped"] = list(made.skipped)
    _show(view, is_json=is_json)
    given = {
        "backup_id": made.manifest.backup_id,
        "made_at": view["made_at"],
        "size": made.size,
    }
    try:
        ask(config_path, "backup_made", given, reason)
    except CommandFailed as error:
        click.echo(
            f"penstock: warning: the backup is good, its event was not kept: {error}", err=True
        )


@backup.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase_option
@config_option
@as_json
def verify(file: Path, passphrase_at: str | None, config_path: Path, *, is_json: bool) -> None:
    """Read the whole of a backup, and tell what it holds."""
    from broker.operations.backup import manifest_view, verify_backup

    _, passphrase = _opened(config_path, passphrase_at)
    with working("verify …"), _failing():
        manifest = verify_backup(file, passphrase)
    _show(manifest_view(manifest), is_json=is_json)


@click.command("restore", short_help="Put a backup into an empty state directory.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase_option
@reason_option
@config_option
@as_json
def restore(
    file: Path,
    passphrase_at: str | None,
    config_path: Path,
    reason: str | None,
    *,
    is_json: bool,
) -> None:
    """Put a backup into the configured state directory, which has to be empty.

    The broker then starts read-only, until it has been compared with its CAs: it does that by
    itself, and says in penstock reconcile what it needs a person for.
    """
    from broker.clock import SystemClock
    from broker.issuance.events import Actor
    from broker.operations.backup import manifest_view
    from broker.operations.backup_restore import restore_backup
    from broker.web.operator import user_name

    config, passphrase = _opened(config_path, passphrase_at)
    with working("restore …"), _failing():
        restored = restore_backup(
            file,
            config.state,
            passphrase=passphrase,
            now=SystemClock().now(),
            actor=Actor(f"operator:{user_name(os.getuid())}", reason),
        )
    view = {
        "state": str(config.state),
        "restoration": restored.restoration_id,
        "crl_numbers_left_out": restored.crl_numbers,
        **manifest_view(restored.manifest),
    }
    _show(view, is_json=is_json)
    click.echo("penstock: hint: start the broker; it is read-only until reconciled", err=True)


@click.command("reconcile", short_help="Compare a restored broker with its CAs.")
@click.option(
    "--accept-loss",
    "accept_loss",
    metavar="UPSTREAM",
    multiple=True,
    help="Accept what could not be looked at there; may be repeated.",
)
@reason_option
@config_option
@as_json
def reconcile(
    accept_loss: tuple[str, ...], config_path: Path, reason: str | None, *, is_json: bool
) -> None:
    """Compare a restored broker with its CAs, and let it go on when nothing stands in the way.

    Exit status: 0 reconciled, 3 something stands in the way.
    """
    report = ask(config_path, "reconcile", {"accept_loss": list(accept_loss)}, reason)
    if is_json:
        print_json(report)
    else:
        _tell(report)
    if not report["reconciled"]:
        names = sorted({loss["upstream"] for loss in report["in_the_way"]})
        accepting = " ".join(f"--accept-loss {name}" for name in names)
        raise _NotReconciled(
            f"not reconciled, the broker stays read-only: {len(report['in_the_way'])} losses",
            f"mend what can be mended, or accept them: penstock reconcile {accepting}",
        )


def _tell(report: dict[str, Any]) -> None:
    for one in report["upstreams"]:
        listed = "no list" if one["listed"] is None else f"{one['listed']} listed"
        click.echo(
            f"{one['upstream']} for {one['community']}: {listed}, {one['known']} known and read, "
            f"{len(one['going_on'])} going on, {len(one['recovered'])} recovered, "
            f"{one['unknown_count']} unknown"
        )
        for order in one["unknown"]:
            names = ", ".join(order["names"])
            click.echo(f"  unknown: {names} ({order['status']}) {order['order_url']}")
        for sentence in one["losses"]:
            click.echo(f"  loss: {sentence}")
    for sentence in report["cannot_be_known"]:
        click.echo(f"cannot be known: {sentence}")


def _opened(config_path: Path, passphrase_at: str | None) -> tuple[Any, bytes]:
    """Return the configuration and the key passphrase."""
    from broker.app.secrets import is_for_one_login, parse_reference, read_passphrase
    from broker.config import load_config

    with readable():
        config = load_config(config_path)
        if passphrase_at is not None:
            return config, parse_reference(passphrase_at).resolve()
        reference = config.keys.passphrase
        if reference.scheme != "vault":
            return config, reference.resolve()
    if is_for_one_login(config, reference):
        raise CommandFailed(
            f"passphrase {reference} lies in Vault, and what this would log in with is wrapped, "
            "good for one login, which is the broker's",
            "read it as yourself and name where it is: vault kv get, then --passphrase env:NAME",
        )
    with readable(), _failing(), working("reading the passphrase from Vault …"):
        return config, asyncio.run(read_passphrase(config))


@contextmanager
def _failing() -> Iterator[None]:
    """Turn what an operation raises into what the command line tells."""
    from broker.issuance.errors import Broken, Unreachable

    try:
        yield
    except (Broken, Unreachable) as error:
        raise CommandFailed(error.reason) from error


def _show(view: Mapping[str, object], *, is_json: bool) -> None:
    if is_json:
        print_json(view)
    else:
        print_pairs(view)
