"""``penstock policy``: what would be decided, and the form of the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json
from broker.commands.policy_bundles import bundle
from broker.commands.policy_diff import diff, impact
from broker.commands.policy_keeping import history, reload, status
from broker.commands.policy_test import test

__all__ = ["policy"]


@click.group("policy", short_help="What the policies say.")
def policy() -> None:
    """What the policies say."""


for _command in (test, diff, impact, status, reload, history, bundle):
    policy.add_command(_command)


@policy.command("explain")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--community", metavar="NAME", default="default", show_default=True)
@click.option("--account", metavar="ID", help="Asked by this account.")
@click.option("--eab", metavar="KEY", help="Asked by an account that this key binds.")
@click.option("--node", metavar="NAME", help="Asked by this node.")
@click.option("--profile", metavar="NAME", help="With this profile.")
@click.option("--address", metavar="IP", help="From this address, as a named proxy reports it.")
@click.option(
    "--client-name",
    "client_names",
    metavar="NAME",
    multiple=True,
    help="With a client certificate that has this DNS name or URI.",
)
@click.option(
    "--client-fingerprint",
    metavar="SHA256",
    help="With the client certificate of this fingerprint.",
)
@click.option("--at", metavar="TIME", help="At this time, such as 2027-03-15T08:00:00Z.")
@click.option(
    "--renewal/--no-renewal",
    default=None,
    help="As the renewal of unchanged names, or not; without either: as it is for the account.",
)
@config_option
@as_json
def explain(config_path: Path, *, is_json: bool, **given: Any) -> None:
    """Tell how an order for NAME... would be decided, and by which rules.

    Without --address nobody knows where the order comes from, and a rule about networks narrows;
    without a client name or fingerprint it shows no client certificate. Policies, accounts and
    upstreams are those of now, also with --at.

    Nothing is ordered. Exit status 0 whether it is allowed or not.
    """
    if sum(given[name] is not None for name in ("account", "eab", "node")) > 1:
        raise click.UsageError("--account, --eab and --node exclude each other")
    given["names"] = list(given["names"])
    given["client_names"] = list(given["client_names"]) or None
    found = ask(config_path, "policy_explain", given)
    if is_json:
        print_json(found)
    else:
        _tell(found)


@policy.command("schema")
@click.option(
    "--kind",
    type=click.Choice(["Policy", "SharedRules", "PolicyCases", "UpstreamFacts"]),
    help="Of files of this kind alone.",
)
def schema(kind: str | None) -> None:
    """Print the JSON schema of policy files of every kind, for editors."""
    from broker.policy.schemas import schema_of, whole_schema

    print_json(whole_schema() if kind is None else schema_of(kind))


def _tell(found: dict[str, Any]) -> None:
    allowed = "allowed" if found["allowed"] else "refused"
    click.echo(f"{', '.join(found['names'])}: {allowed} in community {found['community']}")
    click.echo(f"profile: {found['profile'] or '-'}")
    click.echo(f"owner: {found['owner'] or '-'}")
    _tell_request(found.get("request") or {})
    if found["frozen"]:
        click.echo(f"nothing is ordered now: {found['frozen']} is frozen")
    for step in found["checks"]:
        mark = "no " if step["findings"] else "ok "
        click.echo(f"  {mark} {step['check']}")
        for finding in step["findings"]:
            click.echo(f"       {finding['sentence']}")
            if finding["rule"]:
                click.echo(f"       by {finding['rule']}")
        for ground in step["grounds"]:
            about = f"{ground['name']} " if ground["name"] and len(found["names"]) > 1 else ""
            click.echo(f"       {about}by {ground['rule']}")
    for name in found["not_run"]:
        click.echo(f"  --  {name}")
    _tell_rules(found)
    for name, needed in found["requirements"].items():
        if needed["granted_by"]:
            click.echo(f"{name}: no challenge, by {needed['granted_by']}")
        else:
            click.echo(f"{name}: {' or '.join(needed['challenges'])}")
    _tell_plan(found)
    click.echo(f"CAA: {found['caa']}, at finalize")
    click.echo(f"policy sha256: {found['policy_sha256']}")


def _tell_request(asked: dict[str, Any]) -> None:
    """Tell what was supposed of the request; nothing, if nothing was."""
    if asked.get("address"):
        click.echo(f"address: {asked['address']}")
    shown = [*asked.get("client_names", ()), asked.get("client_fingerprint")]
    if any(shown):
        click.echo(f"client certificate: {', '.join(one for one in shown if one)}")
    if asked.get("at"):
        click.echo(f"at: {asked['at']}")
    if asked.get("renewal"):
        click.echo("it renews unchanged names")


def _tell_rules(found: dict[str, Any]) -> None:
    for rule in found["rules"]:
        mode = "enforced" if rule["enforced"] else "warns"
        click.echo(f"{rule['rule']}, {mode}: {rule['because']}")
        if rule["fault"]:
            click.echo(f"     its expression failed, so it refuses: {rule['fault']}")
    for warning in found["warnings"]:
        click.echo(f"warning: {warning['sentence']}")
    if approval := found["approval"]:
        people = "1 person has" if approval["people"] == 1 else f"{approval['people']} people have"
        whose = f" (only {', '.join(approval['by'])})" if approval.get("by") else ""
        click.echo(f"approval: {people} to say yes{whose}, by {', '.join(approval['rules'])}")
    for quota in found["quotas"]:
        told = "" if quota["enforced"] else ", only warned of"
        click.echo(f"quota per {quota['per']}: {quota['limit']}{told}, by {quota['rule']}")


def _tell_plan(found: dict[str, Any]) -> None:
    if found["cap"]:
        click.echo(f"cap: {found['cap']}, by {found['cap_rule']}")
    elif found["plan"] and found["plan"]["retires_after"]:
        after = found["plan"]["retires_after"]
        click.echo(f"no cap is held: retired {after} after receipt, by {found['cap_rule']}")
    for upstream in found["upstreams"]:
        mark = "taken: " if upstream["taken"] else ""
        click.echo(f"{mark}{upstream['sentence']}")
    if found["plan"]:
        click.echo(f"lever: {found['plan']['lever']}")
