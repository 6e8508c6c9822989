"""``penstock check``: everything that can be found wrong without starting."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
from pydantic import BaseModel

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_table
from broker.config import Config, SecretRef, load_all
from broker.policy.yamlfile import Faults

__all__ = ["check"]


class _Doubtful(CommandFailed):
    """Nothing is wrong, and something is odd: the outcome of --strict."""

    exit_code = 3


@click.command("check", short_help="Check the configuration and the policies.")
@config_option
@click.option("--strict", is_flag=True, help="Exit with 3 when something is odd but not wrong.")
@click.option("--online", is_flag=True, help="Look at CAA records of our names, too.")
@click.option("--secrets", is_flag=True, help="Read the secrets that references point to, too.")
@as_json
def check(*, config_path: Path, strict: bool, online: bool, secrets: bool, is_json: bool) -> None:
    """Check the configuration and the policies together, and change nothing.

    Built-in CAs that near their end are warned of. With --online the CAs of our accounts and the
    DNS are asked whether CAA records keep others out of our names.

    Every fault is told with file and line. Exit status: 0 fine, 2 faults, 3 warnings under
    --strict.
    """
    with readable():
        try:
            config, policies = load_all(config_path)
        except Faults as found:
            if is_json:
                faults = [dataclasses.asdict(fault) for fault in found.faults]
                print_json({"faults": faults, "warnings": [], "policies": {}})
            raise
        if secrets:
            for reference in _secrets(config):
                reference.resolve()
    warnings = [f"{path}: its community is not configured" for path in policies.unused]
    warnings += asyncio.run(_of_the_state(config))
    if online:
        warnings += _of_the_dns(config_path)
    for warning in warnings:
        click.echo(f"penstock: warning: {warning}", err=True)
    documents = {name: made.sha256 for name, made in policies.documents.items()}
    if is_json:
        print_json({"faults": [], "warnings": warnings, "policies": documents})
    else:
        rows = [
            {"community": name, "policy": made.source, "sha256": made.sha256}
            for name, made in policies.documents.items()
        ]
        print_table(rows, ["community", "policy", "sha256"])
    if strict and warnings:
        raise _Doubtful("something is odd, see the warnings")


async def _of_the_state(config: Config) -> Sequence[str]:
    from broker.app import inspect_authorities

    return await inspect_authorities(config)


def _of_the_dns(config_path: Path) -> Sequence[str]:
    from broker.commands.connection import ask

    return [
        f"upstream '{row['upstream']}', community '{row['community']}': "
        + (f"{row['name']}: " if row["name"] else "")
        + row["finding"]
        for row in ask(config_path, "caa_check", {})
    ]


def _secrets(config: Config) -> Iterator[SecretRef]:
    """Yield every reference to a secret, wherever it stands."""
    waiting: list[object] = [config]
    while waiting:
        value = waiting.pop()
        match value:
            case BaseModel():
                waiting += [getattr(value, name) for name in type(value).model_fields]
            case Mapping():
                waiting += value.values()
            case tuple():
                waiting += value
            case SecretRef():
                yield value
