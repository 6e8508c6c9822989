"""``penstock audit``: the trail read, verified, taken out, and held against Vault's own log."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ANSWER_SECONDS, ask, working
from broker.commands.failures import CommandFailed, Misconfigured, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_pairs, print_table
from broker.commands.remote import Server, ask_server, chosen

__all__ = ["audit"]

EXIT_FOUND: Final = 3
"""The trail was read, and something in it does not fit."""

SHOWN: Final = 20
"""Most findings that are printed of each kind; ``--json`` has up to a hundred."""

_file: Final = click.Path(path_type=Path, dir_okay=False, exists=True)


class _Found(CommandFailed):
    """Something does not fit."""

    exit_code = EXIT_FOUND


@click.group("audit", short_help="The trail of everything that happened.")
def audit() -> None:
    """The trail of everything that happened, each record chained to the one before it."""


@audit.command("status")
@config_option
@as_json
def status(config_path: Path, *, is_json: bool) -> None:
    """Tell how far the chain has come, what covers it, and what each sink has."""
    _show(ask(config_path, "audit_status", {}), is_json=is_json)


@audit.command("checkpoint")
@config_option
@as_json
def checkpoint(config_path: Path, *, is_json: bool) -> None:
    """Have the chain signed now, as far as it has come, and print the checkpoint."""
    made = ask(config_path, "audit_checkpoint", {})
    if is_json:
        print_json(made)
    else:
        click.echo(made["jws"])


@audit.command("public-key")
@config_option
def public_key(config_path: Path) -> None:
    """Print the public key that verifies checkpoints, as the broker knows it.

    An auditor takes it from Vault rather than from the broker.
    """
    click.echo(ask(config_path, "audit_public_key", {})["pem"], nl=False)


@audit.command("trace")
@click.argument("reference", metavar="ORDER|CERT|NODE")
@config_option
@as_json
def trace(reference: str, config_path: Path, *, is_json: bool) -> None:
    """List the records about an order, a certificate, a node, an account or another thing.

    CERT is its id, fingerprint or serial number.
    """
    found = ask(config_path, "audit_trace", {"reference": reference})
    if is_json:
        print_json(found)
    else:
        print_table(found, ["record", "at", "kind", "actor", "reason"])


@audit.command("export")
@click.option(
    "--after", metavar="N", type=click.IntRange(0), default=0, help="Records past this number."
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Into this new file; without it to standard output.",
)
@config_option
def export(after: int, output: Path | None, config_path: Path) -> None:
    """Print every record and checkpoint, a line of JSON each, as the sinks have them.

    They are those of this machine's store, or, with --server, of the broker there.
    """
    source = chosen() or _config(config_path)
    if output is None:
        _export(source, after, print)
        return
    try:
        with output.open("x", encoding="utf-8") as file, working("export …"):
            count = _export(source, after, lambda line: print(line, file=file))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{output} cannot be written: {reason}") from error
    click.echo(f"{count} lines", err=True)


@audit.command("verify")
@click.option("--file", "file", metavar="FILE", type=_file, help="An export, or what a sink wrote.")
@click.option(
    "--checkpoints",
    "checkpoints",
    metavar="FILE",
    type=_file,
    help="Checkpoints that left the host; may be the collector's whole file.",
)
@click.option("--public-key", "keys", metavar="FILE", type=_file, help="PEM keys that signed them.")
@click.option(
    "--accept-restore",
    "accepted",
    metavar="ID",
    multiple=True,
    help="A restoration that somebody knows of; may be repeated.",
)
@config_option
@as_json
def verify(
    file: Path | None,
    checkpoints: Path | None,
    keys: Path | None,
    accepted: Sequence[str],
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Read the whole chain, and find what was edited, removed, cut off or written anew.

    Without --file it is that of the store. Without --checkpoints only those beside the chain itself
    are held against it, which whoever rewrites the chain can take away. Exit status: 0 it fits, 3
    something does not.
    """
    from broker.commands.audit_verifying import verified

    _refuse_elsewhere("verify", file)
    config = None if file is not None else _config(config_path)
    with working("verify …"):
        report = verified(
            config, file, checkpoints=checkpoints, keys=keys, accepted=frozenset(accepted)
        )
    if is_json:
        print_json(report)
    else:
        _tell_verified(report)
    if report["findings"]:
        raise _Found(f"the chain does not fit: {_count(report)} findings")


@audit.command("reconcile")
@click.argument("logs", metavar="FILE...", type=_file, nargs=-1, required=True)
@click.option("--file", "file", metavar="FILE", type=_file, help="An export in place of the store.")
@click.option(
    "--key",
    "keys",
    metavar="MOUNT/NAME",
    multiple=True,
    help="A further key of this broker; may be repeated.",
)
@config_option
@as_json
def reconcile(
    logs: Sequence[Path],
    file: Path | None,
    keys: Sequence[str],
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Hold Vault's audit log against the trail: each signature there has its record here, and the
    other way round.

    FILE is what a file audit device of Vault wrote; several where it was rotated. Exit status: 0
    they agree, 3 they do not.
    """
    from broker.commands.audit_verifying import reconciled

    _refuse_elsewhere("reconcile", file)
    with working("reconcile …"):
        report = reconciled(_config(config_path), file, logs, also=frozenset(keys))
    if is_json:
        print_json(report)
    else:
        _tell_reconciled(report)
    if report["only_there"] or report["only_here"]:
        raise _Found(
            f"{len(report['only_there'])} signatures are in Vault's log alone, "
            f"{len(report['only_here'])} are here alone"
        )


def _refuse_elsewhere(verb: str, file: Path | None) -> None:
    """Refuse to read this machine's store in place of that of a broker elsewhere."""
    if file is None and chosen() is not None:
        raise Misconfigured(
            f"'audit {verb}' without --file is about this machine and takes no --server",
            "have audit export --output FILE write the trail, then give it as --file FILE; "
            "for this machine's own store unset PENSTOCK_SERVER",
        )


def _export(source: Any, after: int, write: Callable[[str], None]) -> int:
    """Hand every line of *source*, a configuration or a server, to *write*; return how many."""
    if isinstance(source, Server):
        return _export_from(source, after, write)
    from broker.commands.audit_reading import export_store

    return export_store(source, after, write)


def _export_from(server: Server, after: int, write: Callable[[str], None]) -> int:
    """Hand every line that the broker there has to *write*, page by page; return how many."""
    first, count = after, 0
    place = {"after": after, "checkpoint": 0}
    while True:
        page = ask_server(server, "audit_export", place, None, ANSWER_SECONDS)
        for line in page["lines"]:
            if not _is_covering_earlier(line, first):
                write(line)
                count += 1
        if page["is_all"]:
            return count
        former, place = place, {name: page[name] for name in place}
        if place == former:
            raise CommandFailed(f"the export does not go on after record {place['after']}")


def _is_covering_earlier(line: str, first: int) -> bool:
    """Return whether a line is a checkpoint that covers nothing past record *first*."""
    return line.startswith('{"checkpoint"') and int(json.loads(line)["seq"]) <= first


def _tell_verified(report: dict[str, Any]) -> None:
    click.echo(f"records: {report['first']} to {report['last']}, {report['records']} in the chain")
    if report["earlier"]:
        click.echo(f"from before the chain: {report['earlier']}")
    if report["repeated"]:
        click.echo(f"standing there again: {report['repeated']}")
    for one in report["restorations"]:
        click.echo(
            f"restored from backup {one['backup']} at record {one['record']}, {one['at']}: "
            f"{one['restoration']}"
        )
    told = report["checkpoints"]
    click.echo(
        f"checkpoints: {told['matched']} fit, the last covers record {told['covered']}; "
        f"{told['not_covered']} records after it"
    )
    for sentence in report["notes"]:
        click.echo(f"note: {sentence}")
    for finding in report["findings"][:SHOWN]:
        click.echo(f"FINDING: {finding['sentence']}")
    if not report["findings"]:
        click.echo("the chain fits")


def _tell_reconciled(report: dict[str, Any]) -> None:
    click.echo(f"Vault's log: {report['from']} to {report['to']}, {report['signed']} signatures")
    click.echo(f"with their record here: {report['matched']}")
    if report["unanswered"]:
        click.echo(f"whose answer never came here: {report['unanswered']}")
    if report["outside"]:
        click.echo(f"here, and outside of the log's time: {report['outside']}")
    for key, count in report["others"].items():
        click.echo(f"by another's key {key}: {count}")
    for one in report["only_there"][:SHOWN]:
        click.echo(f"ONLY IN VAULT: {one['at']} {one['key']} {one['request']} by {one['who']}")
    for one in report["only_here"][:SHOWN]:
        click.echo(f"ONLY HERE: {one['at']} {one['key']} {one['request']} for {one['purpose']}")


def _count(report: dict[str, Any]) -> int:
    return len(report["findings"]) + int(report["left_out"])


def _config(path: Path) -> Any:
    from broker.config import load_config

    with readable():
        return load_config(path)


def _show(found: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(found)
    else:
        print_pairs(found)
