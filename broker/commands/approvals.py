"""Commands about requests that people answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option, page_options, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["approval"]

F = TypeVar("F", bound=Callable[..., Any])

STATUSES: Final = (
    "waiting", "approved", "due", "suspended", "denied", "expired", "withdrawn", "all",
)  # fmt: skip

_COLUMNS: Final = ["approval", "status", "names", "profile", "who", "people", "asked", "ends"]

_ENDS: Final = {
    "waiting": "answer_by",
    "approved": "holds_until",
    "due": "holds_until",
    "suspended": "holds_until",
}
"""State that goes on → what its end is called."""

_UNDECIDED: Final = ("waiting", "due")
"""States in which it is still to be answered."""

_told_reason: Final = click.option(
    "--reason", metavar="TEXT", help="Why; kept with the event, and told to the requester."
)

_evidence_option: Final = click.option(
    "--evidence",
    metavar="KIND=REFERENCE",
    multiple=True,
    help="What was looked at: a URL or a sentence, with ' sha256:HEX' behind it where the digest"
    " is known; may be repeated.",
)


@click.group("approval", short_help="Requests that people answer, and what came of them.")
def approval() -> None:
    """Requests that people answer, and the approvals that came of them.

    An order for which policy wants a person is refused at once and filed here. Once as many people
    as it takes have approved it, the next ordinary run of the client gets its certificate.
    """


@approval.command("list", short_help="List what waits for a person.")
@click.option("--status", type=click.Choice(STATUSES), help="In this state, instead of those.")
@click.option("--community", metavar="NAME", help="Of this community only.")
@click.option(
    "--ending-within",
    metavar="DURATION",
    help="Such as 30d: approvals that end or fall due in that time.",
)
@page_options
@config_option
@as_json
def approval_list(config_path: Path, *, is_json: bool, **given: Any) -> None:
    """List what waits for a person: requests, and approvals whose evidence is due anew."""
    found = ask(config_path, "approval_list", given)
    if is_json:
        print_json(found)
    else:
        print_table(found, _COLUMNS)


@approval.command("show", short_help="Show a request with all that is known.")
@click.argument("approval_id", metavar="ID")
@config_option
@as_json
def approval_show(approval_id: str, config_path: Path, *, is_json: bool) -> None:
    """Show a request: who asks, for what, by which rule, and who said what."""
    found = ask(config_path, "approval_show", {"approval": approval_id})
    if is_json:
        print_json(found)
    else:
        told = {name: held for name, held in found.items() if name != "said_yes"}
        print_pairs({**told, **_people(found)})


@approval.command("approve", short_help="Say yes to a request.")
@click.argument("approval_id", metavar="ID")
@_evidence_option
@click.option(
    "--name",
    "names",
    metavar="PATTERN",
    multiple=True,
    help="Of an account: limit its binding key to names; may be repeated.",
)
@click.option(
    "--profile",
    "profiles",
    metavar="NAME",
    multiple=True,
    help="Of an account: limit its binding key to profiles; likewise.",
)
@click.option("--owner", metavar="TEXT", default="", help="Of an account: who answers for it.")
@click.option("--contact", metavar="TEXT", default="", help="Of an account: how to reach them.")
@reason_option
@config_option
@as_json
def approval_approve(
    approval_id: str, config_path: Path, reason: str | None, *, is_json: bool, **given: Any
) -> None:
    """Say yes; where policy wants two people, the second one's yes opens it.

    Whoever answers for the account, its key or its node cannot say yes. For an account a binding
    key is minted and shown this once: its owner registers with it, or with the key that asked.
    """
    given |= {name: list(given[name]) for name in ("evidence", "names", "profiles")}
    given["approval"] = approval_id
    _print_answered(ask(config_path, "approval_approve", given, reason), is_json=is_json)


@approval.command("deny", short_help="Say no to a request.")
@click.argument("approval_id", metavar="ID")
@_evidence_option
@_told_reason
@config_option
@as_json
def approval_deny(
    approval_id: str,
    evidence: tuple[str, ...],
    config_path: Path,
    reason: str | None,
    *,
    is_json: bool,
) -> None:
    """Say no; the requester is told why, and can ask anew after the time for answers."""
    given = {"approval": approval_id, "evidence": list(evidence)}
    _print_answered(ask(config_path, "approval_deny", given, reason), is_json=is_json)


@approval.command("renew", short_help="Have an approval stand for as long again.")
@click.argument("approval_id", metavar="ID")
@_evidence_option
@reason_option
@config_option
@as_json
def approval_renew(
    approval_id: str,
    evidence: tuple[str, ...],
    config_path: Path,
    reason: str | None,
    *,
    is_json: bool,
) -> None:
    """Have an approval stand for as long again; one that is due wants its evidence anew."""
    given = {"approval": approval_id, "evidence": list(evidence)}
    _print_answered(ask(config_path, "approval_renew", given, reason), is_json=is_json)


@approval.command("suspend", short_help="Have an approval open nothing for now.")
@click.argument("approval_id", metavar="ID")
@_told_reason
@config_option
@as_json
def approval_suspend(
    approval_id: str, config_path: Path, reason: str | None, *, is_json: bool
) -> None:
    """Refuse new orders and the finalize of open ones until it is resumed."""
    given = {"approval": approval_id}
    _print_answered(ask(config_path, "approval_suspend", given, reason), is_json=is_json)


@approval.command("resume", short_help="Let a suspended approval go on.")
@click.argument("approval_id", metavar="ID")
@reason_option
@config_option
@as_json
def approval_resume(
    approval_id: str, config_path: Path, reason: str | None, *, is_json: bool
) -> None:
    """Let a suspended approval open again what it opened."""
    given = {"approval": approval_id}
    _print_answered(ask(config_path, "approval_resume", given, reason), is_json=is_json)


@approval.command("withdraw", short_help="Take a request or an approval back for good.")
@click.argument("approval_id", metavar="ID")
@_told_reason
@config_option
@as_json
def approval_withdraw(
    approval_id: str, config_path: Path, reason: str | None, *, is_json: bool
) -> None:
    """Take it back for good: open orders end here, and certificates where policy says so."""
    given = {"approval": approval_id}
    _print_answered(ask(config_path, "approval_withdraw", given, reason), is_json=is_json)


def _print_answered(found: Any, *, is_json: bool) -> None:
    """Print what became of a request by an answer; ``approval show`` has the rest."""
    if is_json:
        print_json(found)
        return
    told = {name: found.get(name) for name in ("approval", "status", "names")} | _people(found)
    status = str(found.get("status"))
    more = {
        "evidence_missing": found.get("evidence_missing") if status in _UNDECIDED else None,
        _ENDS.get(status, "ended"): found.get("ends") if status in _ENDS else None,
        "reason": found.get("reason"),
        "key_id": found.get("key_id"),
        "mac_key": found.get("mac_key"),
    }
    print_pairs(told | {name: held for name, held in more.items() if held})


def _people(found: Mapping[str, Any]) -> dict[str, str]:
    """Return how many of how many have said yes, where the broker tells."""
    if "said_yes" not in found:
        return {}
    wanted = found.get("people")
    whose = "person has" if wanted == 1 else "people have"
    return {"people": f"{found['said_yes']} of {wanted} {whose} said yes"}
