"""Commands about pods that are not there yet: ``penstock workload``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json

__all__ = ["workload"]


@click.group("workload", short_help="What pods of a cluster would get.")
def workload() -> None:
    """What pods of a cluster would get."""


@workload.command("review")
@click.argument("cluster", metavar="CLUSTER")
@click.argument("service_account", metavar="NAMESPACE/SERVICE_ACCOUNT")
@click.option("--pod", metavar="NAME", default="", help="The pod, where its name is known.")
@click.option(
    "--service",
    "services",
    metavar="NAME",
    multiple=True,
    help="A Service that selects it; may be repeated.",
)
@click.option(
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    help="A name that it asks for; may be repeated.  Without: what its rule gives it.",
)
@click.option("--profile", metavar="NAME", help="With this profile.")
@config_option
@as_json
def review(
    cluster: str, service_account: str, config_path: Path, *, is_json: bool, **given: Any
) -> None:
    """Tell what a pod of a service account would get, and why not.

    Nothing is ordered, and no limit is touched. Exit status 0 whether it would get anything or not.
    """
    namespace, slash, account = service_account.partition("/")
    if not slash or not namespace or not account:
        raise click.UsageError("Give the service account as NAMESPACE/SERVICE_ACCOUNT.")
    given |= {"services": list(given["services"]), "names": list(given["names"])}
    asked = {"cluster": cluster, "namespace": namespace, "service_account": account, **given}
    found = ask(config_path, "workload_review", asked)
    if is_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    allowed = "allowed" if found["allowed"] else "refused"
    names = ", ".join(found["names"]) or "no name"
    where = f"{found['cluster']}/{found['namespace']}/{found['service_account']}"
    click.echo(f"{names}: {allowed} for {where}")
    if found["node"]:
        click.echo(f"node: {found['node']} of community {found['community']}")
    click.echo(f"profile: {found['profile'] or '-'}")
    click.echo(f"upstreams: {', '.join(found['upstreams']) or '-'}")
    if found["upstream"]:
        click.echo(f"taken now: {found['upstream']}")
    for reason in found["reasons"]:
        click.echo(f"  no  {reason['check']}: {reason['detail']}")
        if reason["rule"]:
            click.echo(f"      by {reason['rule']} ({reason['file']}:{reason['line']})")
    for one in found["budget"]:
        more = f", {one['detail']}" if one["detail"] else ""
        click.echo(f"  {one['used']} of {one['limit']} used of {one['quota']}{more}")
