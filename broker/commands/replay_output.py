"""What a replay found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from broker.policy.replay import Effect
from broker.policy.replay_report import Group, ReplayKind, ReplayReport
from broker.protocol.encoding import format_timestamp
from broker.protocol.problems import printable

__all__ = ["report_view", "tell_report"]

MAX_TOLD: Final = 20
"""Most groups of an effect that are told to people; ``--json`` has them all."""

_TITLES: Final[Mapping[Effect, str]] = {
    Effect.REFUSED: "newly refused",
    Effect.ALLOWED: "newly allowed",
    Effect.SHORTENED: "shortened",
    Effect.LENGTHENED: "lengthened",
    Effect.APPROVAL: "would need approval",
    Effect.FEWER_KEYS: "fewer kinds of key",
    Effect.MOVED: "from another upstream",
    Effect.WARNED: "newly warned of",
}

_WORDS: Final[Mapping[ReplayKind, str]] = {
    ReplayKind.ORDER: "order",
    ReplayKind.CERTIFICATE: "live certificate",
    ReplayKind.REFUSAL: "refused request",
}


def tell_report(report: ReplayReport, days: int) -> None:
    """Print *report* for people: each effect with its largest groups."""
    done = report.replayed
    click.echo(
        f"replayed: {_number(done[ReplayKind.ORDER], ReplayKind.ORDER)} of {days} days, "
        f"{_number(done[ReplayKind.CERTIFICATE], ReplayKind.CERTIFICATE)}, "
        f"{_number(done[ReplayKind.REFUSAL], ReplayKind.REFUSAL)}"
        + (f"; {report.closed:,} of closed accounts left out" if report.closed else "")
    )
    groups = list(report.groups())
    if not groups:
        click.echo("nobody is touched")
    for effect in Effect:
        of_effect = [group for group in groups if group.effect is effect]
        if of_effect:
            counts = report.by_effect[effect]
            click.echo(f"\n{_TITLES[effect]}: {_counted(counts)}")
            for group in of_effect[:MAX_TOLD]:
                _tell_group(group)
            if len(of_effect) > MAX_TOLD:
                click.echo(f"  and {len(of_effect) - MAX_TOLD} more groups, see --json")


def _counted(counts: Mapping[ReplayKind, int]) -> str:
    return ", ".join(_number(counts[kind], kind) for kind in ReplayKind if counts[kind])


def _number(count: int, kind: ReplayKind) -> str:
    return f"{count:,} {_WORDS[kind]}{'' if count == 1 else 's'}"


def _tell_group(group: Group) -> None:
    place = "" if group.rule is None else f" by {group.rule.source}:{group.rule.line}"
    counts = {
        ReplayKind.ORDER: group.orders,
        ReplayKind.CERTIFICATE: group.certificates,
        ReplayKind.REFUSAL: group.refusals,
    }
    again = f", {group.renewals:,} of them renewals" if group.renewals else ""
    who = printable(group.requester, 200)
    click.echo(f"  {who} in community {group.community}: {_counted(counts)}{again}{place}")
    click.echo(f"    {printable(group.sentence, 400)}")
    click.echo(f"    such as {printable(', '.join(group.names), 300)}")
    if group.first_end is not None:
        click.echo(f"    the first of these certificates ends {format_timestamp(group.first_end)}")


def report_view(report: ReplayReport, days: int) -> dict[str, Any]:
    """Return *report* for programs."""
    return {
        "days": days,
        "replayed": {str(kind): count for kind, count in report.replayed.items()},
        "touched": {str(kind): count for kind, count in report.touched.items()},
        "of_closed_accounts": report.closed,
        "effects": {
            str(effect): {str(kind): count for kind, count in counts.items()}
            for effect, counts in report.by_effect.items()
        },
        "groups": [_group_view(group) for group in report.groups()],
    }


def _group_view(group: Group) -> dict[str, Any]:
    rule = group.rule
    return {
        "effect": str(group.effect),
        "community": group.community,
        "requester": group.requester,
        "rule": None if rule is None else f"{rule.source}:{rule.line} {rule.path}",
        "sentence": group.sentence,
        "orders": group.orders,
        "renewals": group.renewals,
        "certificates": group.certificates,
        "refusals": group.refusals,
        "first_end": None if group.first_end is None else format_timestamp(group.first_end),
        "names": group.names,
        "references": group.references,
    }
