"""``penstock policy diff`` and ``impact``: whom a change touches, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ask
from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json
from broker.commands.replay_output import report_view, tell_report
from broker.commands.replaying import Limits, replay_all
from broker.config import Config, load_config
from broker.config.policy_review import foreseen_by, load_directory, load_texts, world_of
from broker.issuance.policy_ports import LoadedPolicies, PolicyTexts
from broker.policy.forecast import Foreseen
from broker.policy.replay import Effect, World
from broker.policy.replay_report import ReplayReport

__all__ = ["diff", "impact"]

DEFAULT_DAYS: Final = 30
"""How many days of orders are replayed: each 47-day certificate is renewed once in that time."""

_HARD: Final = (Effect.REFUSED, Effect.SHORTENED, Effect.APPROVAL, Effect.FEWER_KEYS)
"""What somebody would notice who is served today."""

_directory = click.Path(path_type=Path, exists=True, file_okay=False)


class _Touched(CommandFailed):
    """Somebody would be served less: the outcome of --strict."""

    exit_code = 3


@click.command("diff", short_help="Replay real orders against two policy directories.")
@click.argument("directories", metavar="[OLD] NEW", nargs=-1, required=True, type=_directory)
@click.option(
    "--days",
    type=click.IntRange(0, 3660),
    default=DEFAULT_DAYS,
    show_default=True,
    help="How many days of orders to replay.",
)
@click.option("--strict", is_flag=True, help="Exit with 3 when anybody would be served less.")
@click.option("--progress", is_flag=True, help="Tell how far it is without a terminal, too.")
@config_option
@as_json
def diff(
    *,
    directories: Sequence[Path],
    days: int,
    strict: bool,
    progress: bool,
    config_path: Path,
    is_json: bool,
) -> None:
    """Tell who would be newly refused, shortened or newly allowed if NEW came into force.

    The orders of the last days, the requests that were refused, and the renewal of every live
    certificate are asked of both directories; OLD is what the configuration names unless it is
    given. Nothing is changed, and CAs count as being there: policies are compared, not outages.

    Exit status: 0 compared, 2 a file is wrong or one of its cases fails, 3 somebody would be
    served less, under --strict.
    """
    if len(directories) > 2:
        raise click.UsageError(f"expected [OLD] NEW, found {len(directories)} directories")
    with readable():
        config = load_config(config_path)
        new = load_directory(config, directories[-1])
        old = (
            load_directory(config, directories[0])
            if len(directories) == 2
            else _in_force(config_path, config)
        )
    now = _broker_time(config_path)
    report = _replayed(
        config_path,
        config,
        (world_of(config, old, now), world_of(config, new, now)),
        days=days,
        is_shown=progress,
    )
    if is_json:
        print_json({"old": _digest(old), "new": _digest(new), **report_view(report, days)})
    else:
        click.echo(f"old: {_digest(old)}\nnew: {_digest(new)}")
        tell_report(report, days)
    if strict and report.has(*_HARD):
        raise _Touched("somebody would be served less")


@click.command("impact", short_help="Tell what a future day does to the policies in force.")
@click.option("--on", "day", metavar="DATE", required=True, help="The day, as 2027-03-15.")
@click.option("--policies", "directory", metavar="DIRECTORY", type=_directory, help="Of these.")
@click.option(
    "--days",
    type=click.IntRange(0, 3660),
    default=DEFAULT_DAYS,
    show_default=True,
    help="How many days of orders to replay.",
)
@click.option("--strict", is_flag=True, help="Exit with 3 when anybody would be served less.")
@click.option("--progress", is_flag=True, help="Tell how far it is without a terminal, too.")
@config_option
@as_json
def impact(
    *,
    day: str,
    directory: Path | None,
    days: int,
    strict: bool,
    progress: bool,
    config_path: Path,
    is_json: bool,
) -> None:
    """Tell which rules stop working by DATE, and for whom.

    CAs and root programmes announce what they will change, and rules begin and end by date: what
    is known of both stands in the files. The orders of the last days and the renewal of every live
    certificate are asked as of today and as of that day.

    Exit status: 0 compared, 2 a file is wrong, 3 somebody would be served less, under --strict.
    """
    on = _day(day)
    with readable():
        config = load_config(config_path)
        policies = (
            _in_force(config_path, config)
            if directory is None
            else load_directory(config, directory)
        )
    now = _broker_time(config_path)
    if on <= now.date():
        raise click.BadParameter(f"{on} is not in the future", param_hint="'--on'")
    today = world_of(config, policies, now)
    then = World(
        documents=today.documents,
        upstreams=today.upstreams,
        at=datetime.combine(on, time(23, 59), UTC),
    )
    foreseen = foreseen_by(config, policies, after=now.date(), until=on)
    report = _replayed(config_path, config, (today, then), days=days, is_shown=progress)
    if is_json:
        print_json({"foreseen": [_seen_view(one) for one in foreseen], **report_view(report, days)})
    else:
        for one in foreseen:
            click.echo(str(one))
        click.echo("" if foreseen else f"nothing is known to change by {on}\n", nl=bool(foreseen))
        tell_report(report, days)
    if strict and (report.has(*_HARD) or any(one.kind.is_warned_of for one in foreseen)):
        raise _Touched("somebody would be served less")


def _in_force(config_path: Path, config: Config) -> LoadedPolicies:
    """Return what the broker has in force, whatever lies in its directories by now; without one
    that has kept anything, what lies there."""
    try:
        status = ask(config_path, "policy_status", {})
        kept = ask(config_path, "policy_set", {"sha256": status["in_force"]["sha256"]})
    except CommandFailed:
        return load_directory(config, None)
    files = {name: text.encode() for name, text in kept["texts"].items()}
    return load_texts(config, PolicyTexts(files=files))


def _replayed(
    config_path: Path,
    config: Config,
    worlds: tuple[World, World],
    *,
    days: int,
    is_shown: bool,
) -> ReplayReport:
    limits: Limits = {
        (key.community, key.key_id): (tuple(key.names), tuple(key.profiles))
        for key in config.external_account_bindings
    }
    return replay_all(
        lambda command, given: ask(config_path, command, given),
        *worlds,
        days=days,
        limits=limits,
        is_shown=is_shown,
    )


def _broker_time(config_path: Path) -> datetime:
    """Return the time as the broker has it: two clocks would compare two days."""
    told = ask(config_path, "policy_asked_counts", {"days": 0})
    return datetime.fromisoformat(told["at"])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is no date such as 2027-03-15", param_hint="'--on'"
        ) from None


def _seen_view(one: Foreseen) -> dict[str, Any]:
    return {
        "on": one.on.isoformat(),
        "kind": str(one.kind),
        "community": one.community,
        "profile": one.profile,
        "upstream": one.upstream,
        "sentence": one.sentence,
        "rule": f"{one.rule.source}:{one.rule.line}",
    }


def _digest(policies: LoadedPolicies) -> str:
    return policies.texts.sha256
