"""``penstock check``: everything that can be found wrong without starting."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import click

from broker.clock import SystemClock
from broker.commands.failures import CommandFailed, Misconfigured, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_table
from broker.config import Config, load_all, load_config
from broker.config.policy_review import foreseen_by
from broker.issuance.errors import Broken
from broker.issuance.policy_ports import LoadedPolicies
from broker.policy.forecast import FORESIGHT
from broker.policy.yamlfile import Faults

__all__ = ["check"]

_UNFIT: Final = frozenset({"barring", "exposed"})
"""What about a key is a fault; that it has lived elsewhere, or was not seen, is a warning."""


class _Doubtful(CommandFailed):
    """Nothing is wrong, and something is odd: the outcome of --strict."""

    exit_code = 3


@click.command("check", short_help="Check the configuration and the policies.")
@config_option
@click.option("--strict", is_flag=True, help="Exit with 3 when something is odd but not wrong.")
@click.option("--online", is_flag=True, help="Ask Vault, CAs and the DNS, too.")
@click.option("--secrets", is_flag=True, help="Read the secrets that references point to, too.")
@click.option(
    "--start", is_flag=True, help="Refused policies are a warning where an earlier set is kept."
)
@as_json
def check(
    *, config_path: Path, strict: bool, online: bool, secrets: bool, start: bool, is_json: bool
) -> None:
    """Check the configuration and the policies together, and change nothing.

    Built-in CAs that near their end are warned of, and so are rules that stop working within half
    a year by what CAs have announced. A broker that runs here with keys in Vault is asked whether
    one of them is what it must not be: rotating by itself, or able to leave. With --online that is
    asked without a broker as well, and CAs and the DNS whether CAA records keep others out of our
    names.

    Every fault is told with file and line. Exit status: 0 fine, 2 faults, 3 warnings under
    --strict.
    """
    refused: list[str] = []
    with readable():
        try:
            config, policies = _as_a_start_would(config_path, refused, is_start=start)
        except Faults as found:
            if is_json:
                faults = [dataclasses.asdict(fault) for fault in found.faults]
                print_json({"faults": faults, "warnings": [], "policies": {}})
            raise
        in_vault = _of_the_secrets(config, config_path) if secrets else []
        _of_the_people(config)
    warnings = [f"{path}: its community is not configured" for path in policies.unused] + refused
    warnings += [row["finding"] for row in in_vault if row["kind"] == "unreachable"]
    warnings += [*_of_known_days(config, policies), *asyncio.run(_of_the_state(config))]
    keys = _of_the_keys(config_path) if online else _as_a_broker_says(config)
    warnings += [_told(row) for row in keys if row["kind"] not in _UNFIT]
    unfit = [_told(row) for row in keys if row["kind"] in _UNFIT]
    unread = [row["finding"] for row in in_vault if row["kind"] == "broken"]
    if online:
        warnings += _of_the_dns(config_path)
    for fault in (*unfit, *unread):
        click.echo(f"penstock: error: {fault}", err=True)
    for warning in warnings:
        click.echo(f"penstock: warning: {warning}", err=True)
    documents = {name: made.sha256 for name, made in policies.documents.items()}
    if is_json:
        odd = {"keys": unfit, "secrets": unread, "warnings": warnings}
        print_json({"faults": [], **odd, "policies": documents})
    else:
        rows = [
            {"community": name, "policy": made.source, "sha256": made.sha256}
            for name, made in policies.documents.items()
        ]
        print_table(rows, ["community", "policy", "sha256"])
    if unfit:
        raise Misconfigured("a key in use is what it must not be")
    if unread:
        raise Misconfigured("a secret in Vault cannot be read")
    if strict and warnings:
        raise _Doubtful("something is odd, see the warnings")


def _as_a_start_would(
    config_path: Path, refused: list[str], *, is_start: bool
) -> tuple[Config, LoadedPolicies]:
    """Return the configuration with its policies, or with those that were in force last.

    Why the files are refused is added to *refused*.
    """
    try:
        return load_all(config_path)
    except (Faults, Broken) as found:
        if not is_start:
            raise
        from broker.app import kept_policies

        config = load_config(config_path)
        kept = asyncio.run(kept_policies(config))
        if kept is None:
            raise
        refused += [str(one) for one in found.faults] if isinstance(found, Faults) else [str(found)]
        refused.append("a broker that starts now goes on with the policies that were in force")
        return config, kept


def _of_known_days(config: Config, policies: LoadedPolicies) -> Sequence[str]:
    """Return which rules stop working within half a year, by what CAs have announced."""
    today = SystemClock().now().date()
    found = foreseen_by(config, policies, after=today, until=today + FORESIGHT)
    return [str(one) for one in found if one.kind.is_warned_of]


def _of_the_people(config: Config) -> None:
    """Look at the anchors of people; a file that is not here may be there where the broker runs.

    Raises:
        Broken: Nobody would come in by them.
    """
    from broker.app.operator_tls import read_anchors

    anchors = config.operators.anchors if config.operators is not None else None
    if anchors is not None and anchors.is_file():
        read_anchors(anchors)


async def _of_the_state(config: Config) -> Sequence[str]:
    from broker.app import inspect_authorities

    return await inspect_authorities(config)


def _of_the_secrets(config: Config, config_path: Path) -> Sequence[Mapping[str, str]]:
    """Read every secret that a reference points to; those in Vault as the broker does.

    What this process would log in with may be good for one login, which is the broker's.
    """
    from broker.app.secrets import references
    from broker.commands.connection import ask

    found = tuple(references(config))
    for reference in found:
        if reference.scheme != "vault":
            reference.resolve()
    if all(reference.scheme != "vault" for reference in found):
        return ()
    return cast(Sequence[Mapping[str, str]], ask(config_path, "secret_check", {}))


def _of_the_keys(config_path: Path) -> Sequence[Mapping[str, str]]:
    from broker.commands.connection import ask

    return cast(Sequence[Mapping[str, str]], ask(config_path, "key_check", {}))


def _as_a_broker_says(config: Config) -> Sequence[Mapping[str, str]]:
    """Return what a running broker says of its keys in Vault; this process asks Vault nothing, so
    that a configuration is checked where Vault cannot be reached."""
    from broker.commands.connection import ask_running

    if config.vault is None:
        return ()
    try:
        found = ask_running(config.operator_socket, "key_check")
    except CommandFailed as failure:
        finding = f"the broker that runs here was not asked: {failure}"
        return ({"use": "keys in Vault", "kind": "unseen", "finding": finding},)
    return cast(Sequence[Mapping[str, str]], found or ())


def _told(row: Mapping[str, str]) -> str:
    return f"{row['use']}: {row['finding']}"


def _of_the_dns(config_path: Path) -> Sequence[str]:
    from broker.commands.connection import ask

    return [
        f"upstream '{row['upstream']}', community '{row['community']}': "
        + (f"{row['name']}: " if row["name"] else "")
        + row["finding"]
        for row in ask(config_path, "caa_check", {})
    ]
