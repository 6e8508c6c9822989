"""Commands about renewals at nodes: what waits for whom, and renewing now."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker.commands.connection import ask
from broker.commands.failures import CommandFailed
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = [
    "cert_release",
    "cert_trace",
    "cert_withdraw",
    "list_watched",
    "renew",
    "watch_options",
]

F = TypeVar("F", bound=Callable[..., Any])

LOOK_SECONDS: Final = 0.5
"""Pause between two looks at deliveries that are followed, in seconds."""

ASKED_AT_ONCE: Final = 500
"""Most deliveries that one look asks about; their ids are 16 KiB."""

COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "due": ("node", "certificate", "names", "not_after", "due_since", "next", "attempts", "fault"),
    "held": ("delivery", "node", "certificate", "names", "begun", "note"),
    "not-seen": ("delivery", "stage", "node", "certificate", "names", "pushed", "note"),
    "not-renewed": ("certificate", "account", "names", "should_by", "not_after"),
}
"""What is shown of each list."""


def watch_options(command: F) -> F:
    """Add the options that list what needs attention."""
    texts = {
        "due": "At nodes, due or in trouble.",
        "held": "At nodes, held since something was lost.",
        "not-seen": "At nodes, pushed and not seen served in time.",
        "not-renewed": "Of clients that should have renewed them.",
    }
    for kind, text in texts.items():
        command = click.option(f"--{kind}", "watched", flag_value=kind, help=text)(command)
    return command


def list_watched(kind: str, config_path: Path, *, limit: int, is_json: bool) -> None:
    """Print one of the lists."""
    found = ask(config_path, "cert_watch", {"kind": kind, "limit": limit})
    if is_json:
        print_json(found)
    else:
        print_table(found, COLUMNS[kind])


@click.command("trace", short_help="Follow a certificate from order to seen.")
@click.argument("reference", metavar="ID|FINGERPRINT")
@config_option
@as_json
def cert_trace(reference: str, config_path: Path, *, is_json: bool) -> None:
    """Follow a certificate from its order to the server that was seen to serve it.

    ID is that of a delivery, an order or a certificate.
    """
    _print(ask(config_path, "cert_trace", {"reference": reference}), is_json=is_json)


@click.command("release", short_help="Let a held certificate go to its node.")
@click.argument("delivery", metavar="ID")
@reason_option
@config_option
@as_json
def cert_release(delivery: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Let a certificate go to its node although it has less than the one it replaces."""
    _print(ask(config_path, "cert_release", {"delivery": delivery}, reason), is_json=is_json)


@click.command("withdraw", short_help="Take a certificate back from its way.")
@click.argument("delivery", metavar="ID")
@reason_option
@config_option
@as_json
def cert_withdraw(delivery: str, reason: str | None, config_path: Path, *, is_json: bool) -> None:
    """Take a certificate back that is on its way to a node; what is served there stays."""
    _print(ask(config_path, "cert_withdraw", {"delivery": delivery}, reason), is_json=is_json)


@click.command("renew", short_help="Renew certificates at nodes now.")
@click.argument("target", metavar="[NODE|NAME]", required=False)
@click.option("--all-due", is_flag=True, help="All that are due or in trouble.")
@click.option("--node", "nodes", metavar="PATTERN", help="All of the nodes with such a name.")
@click.option("--dry-run", is_flag=True, help="Tell what would be renewed, and what not.")
@click.option(
    "--wait",
    "wait_seconds",
    metavar="SECONDS",
    type=click.IntRange(0, 86400),
    default=300,
    show_default=True,
    help="Follow them for so long; 0: not at all.",
)
@reason_option
@config_option
@as_json
def renew(
    config_path: Path,
    reason: str | None,
    *,
    wait_seconds: int,
    dry_run: bool,
    is_json: bool,
    **given: Any,
) -> None:
    """Renew certificates at nodes now, and follow them until they are seen served.

    NODE is the name of a node, NAME that of a certificate or a name that it is for.
    """
    made = ask(config_path, "renew", {**given, "dry_run": dry_run}, reason)
    rows = made["certificates"]
    followed = [row["delivery"] for row in rows if row["delivery"]]
    ends: list[dict[str, Any]] = []
    if followed and wait_seconds:
        ends = _follow(config_path, followed, wait_seconds)
    stages = {one["delivery"]: one for one in ends}
    for row in rows:
        end = stages.get(row["delivery"], {})
        row["stage"] = end.get("stage") or ("refused" if row["refused"] else None)
        row["note"] = row["refused"] or end.get("note")
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["node", "certificate", "names", "not_after", "stage", "note"])
    _judge(rows, is_waited=bool(wait_seconds) and not dry_run)


def _follow(config_path: Path, deliveries: Sequence[str], seconds: int) -> list[dict[str, Any]]:
    """Return how the deliveries ended, or stand when the time is over; a bar shows it meanwhile."""
    deadline = time.monotonic() + seconds
    shown = 0
    with click.progressbar(
        length=len(deliveries),
        label="renewing",
        file=sys.stderr,
        item_show_func=lambda text: text,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        while True:
            found = _look(config_path, deliveries)
            ended = sum(1 for one in found if one["ended"])
            counts = Counter(one["stage"] for one in found)
            text = ", ".join(f"{number} {stage}" for stage, number in sorted(counts.items()))
            bar.update(ended - shown, text)
            shown = ended
            if ended == len(found) or time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_SECONDS)


def _look(config_path: Path, deliveries: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(deliveries), ASKED_AT_ONCE):
        asked = {"deliveries": list(deliveries[start : start + ASKED_AT_ONCE])}
        found += ask(config_path, "renew_progress", asked)
    return found


def _judge(rows: Sequence[Mapping[str, Any]], *, is_waited: bool) -> None:
    """Fail where not all came to be served."""
    refused = sum(1 for row in rows if row["refused"])
    unseen = sum(1 for row in rows if is_waited and not row["refused"] and row["stage"] != "seen")
    if refused or unseen:
        parts = [f"{refused} refused"] if refused else []
        parts += [f"{unseen} not seen served"] if unseen else []
        raise CommandFailed(
            f"of {len(rows)} certificates {' and '.join(parts)}", "see penstock cert list --due"
        )


def _print(found: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(found)
    else:
        print_pairs(found)
