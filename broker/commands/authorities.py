"""Commands about those whom we ask: upstreams, and the CA that we are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.commands.connection import ask
from broker.commands.failures import CommandFailed
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table

__all__ = ["ca", "upstream"]


@click.group("upstream", short_help="The CAs that the broker asks.")
def upstream() -> None:
    """The CAs that the broker asks."""


@upstream.command("list")
@config_option
@as_json
def upstream_list(config_path: Path, *, is_json: bool) -> None:
    """List upstreams with our accounts there and what is suspended."""
    rows = ask(config_path, "upstream_list", {})
    if is_json:
        print_json(rows)
        return
    table = [
        {
            **row,
            "accounts": [each["community"] for each in row["accounts"]],
            "suspended": [each["profile"] or "(default)" for each in row["suspensions"]],
        }
        for row in rows
    ]
    print_table(table, ["upstream", "kind", "communities", "accounts", "suspended", "url"])


@upstream.command("register")
@click.argument("name")
@click.option("--community", metavar="NAME", help="For this community only.")
@click.option("--agree-to-terms", is_flag=True, help="Agree to the CA's terms of service.")
@reason_option
@config_option
@as_json
def upstream_register(
    name: str,
    community: str | None,
    reason: str | None,
    config_path: Path,
    *,
    agree_to_terms: bool,
    is_json: bool,
) -> None:
    """Find or make our account at a CA, one for each community that it serves."""
    given = {"upstream": name, "community": community, "agree_to_terms": agree_to_terms}
    rows = ask(config_path, "upstream_register", given, reason)
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["upstream", "community", "url", "registered"])


@upstream.command("check")
@click.argument("name", required=False)
@config_option
@as_json
def upstream_check(name: str | None, config_path: Path, *, is_json: bool) -> None:
    """Ask upstreams whether we could order there now; nothing is ordered."""
    rows = ask(config_path, "upstream_check", {"upstream": name})
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["upstream", "community", "faults"])
    if any(row["faults"] for row in rows):
        raise CommandFailed("not every upstream can be ordered from")


@upstream.command("resume")
@click.argument("name")
@click.option("--profile", metavar="NAME", help="The CA's profile; without it: its default.")
@reason_option
@config_option
@as_json
def upstream_resume(
    name: str, profile: str | None, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Order again from an upstream that was suspended for breaking the cap."""
    made = ask(config_path, "upstream_resume", {"upstream": name, "profile": profile}, reason)
    _show(made, is_json=is_json)


@click.group("ca", short_help="The CA that the broker is itself.")
def ca() -> None:
    """The built-in CA: make its keys and look at them."""


@ca.command("show")
@click.option("--upstream", metavar="NAME", help="Which, where there are several.")
@config_option
@as_json
def ca_show(upstream: str | None, config_path: Path, *, is_json: bool) -> None:
    """Show root and issuing CA."""
    _show(ask(config_path, "ca_show", {"upstream": upstream}), is_json=is_json)


@ca.command("init")
@click.option("--upstream", metavar="NAME", help="Which, where there are several.")
@click.option("--subject", metavar="NAME", help="Such as 'CN=Example PKI,O=Example'.")
@click.option(
    "--permit-name",
    "permitted_names",
    metavar="SUFFIX",
    multiple=True,
    help="Names at or below this may be certified, others may not; '@corp.example' is e-mail of "
    "that domain; may be repeated.",
)
@click.option(
    "--permit-network",
    "permitted_networks",
    metavar="NETWORK",
    multiple=True,
    help="Addresses within may be certified; may be repeated.",
)
@click.option("--unconstrained", is_flag=True, help="Let it certify any name.")
@click.option(
    "--issuing-csr",
    "csr_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Make no root: write a request for an offline root to sign.",
)
@reason_option
@config_option
@as_json
def ca_init(
    config_path: Path, csr_file: Path | None, reason: str | None, *, is_json: bool, **given: Any
) -> None:
    """Make a root and an issuing CA, with path length and name constraints set.

    Without --permit-name and --permit-network it is held to the names that the policies of its
    communities allow, and to the broker's own.

    With --issuing-csr only the issuing key is made; `penstock ca accept` takes what the offline
    root signed.
    """
    given |= {
        "permitted_names": list(given["permitted_names"]),
        "permitted_networks": list(given["permitted_networks"]),
        "issuing_csr": csr_file is not None,
    }
    if given["unconstrained"] and (given["permitted_names"] or given["permitted_networks"]):
        raise click.UsageError("--unconstrained excludes --permit-name and --permit-network")
    if csr_file is not None and (given["permitted_names"] or given["permitted_networks"]):
        raise click.UsageError("names are for the offline root to permit, not for its request")
    made = ask(config_path, "ca_init", given, reason)
    if csr_file is not None:
        made = _written(made, csr_file)
    _show(made, is_json=is_json)


@ca.command("accept")
@click.argument("chain", type=click.File("r", encoding="ascii"))
@click.option(
    "--root",
    "anchors",
    required=True,
    type=click.File("r", encoding="ascii"),
    help="PEM file of the offline root.",
)
@click.option("--upstream", metavar="NAME", help="Which, where there are several.")
@reason_option
@config_option
@as_json
def ca_accept(
    chain: Any,
    anchors: Any,
    upstream: str | None,
    reason: str | None,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Take the issuing certificate that an offline root signed.

    The first one issues from then on; a later one is the next in a rotation.
    """
    given = {"chain_pem": chain.read(), "anchors_pem": anchors.read(), "upstream": upstream}
    _show(ask(config_path, "ca_accept", given, reason), is_json=is_json)


@ca.group("rotate", short_help="Replace the issuing CA, key and all.")
def rotate() -> None:
    """Replace the issuing CA under the same root: prepare, activate, and in the end retire.

    The old one and the new one live beside each other until nothing depends on the old one.
    """


@rotate.command("prepare")
@click.argument("upstream", metavar="[NAME]", required=False)
@click.option("--subject", metavar="NAME", help="Without it: the next number.")
@click.option(
    "--issuing-csr",
    "csr_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a request for an offline root to sign.",
)
@reason_option
@config_option
@as_json
def rotate_prepare(
    upstream: str | None,
    subject: str | None,
    csr_file: Path | None,
    reason: str | None,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Make the next issuing CA and publish it; it signs nothing yet.

    It is held to the names of the current one.  Where the root is offline, --issuing-csr writes a
    request, and `penstock ca accept` takes what the root signed.
    """
    given = {"upstream": upstream, "subject": subject, "issuing_csr": csr_file is not None}
    made = ask(config_path, "ca_rotate_prepare", given, reason)
    if csr_file is not None:
        made = _written(made, csr_file)
    _show(made, is_json=is_json)


@rotate.command("activate")
@click.argument("upstream", metavar="[NAME]", required=False)
@reason_option
@config_option
@as_json
def rotate_activate(
    upstream: str | None, reason: str | None, config_path: Path, *, is_json: bool
) -> None:
    """Have the next issuing CA sign from now on.

    The one before it goes on signing its revocation list, for the certificates that it issued.
    """
    made = ask(config_path, "ca_rotate_activate", {"upstream": upstream}, reason)
    _show(made, is_json=is_json)


@rotate.command("retire")
@click.argument("upstream", metavar="[NAME]", required=False)
@click.option("--issuer", metavar="KEY", help="Which, where there are several; see ca show.")
@reason_option
@config_option
@as_json
def rotate_retire(
    upstream: str | None,
    issuer: str | None,
    reason: str | None,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """End the key of the issuing CA before, once nothing depends on it.

    While a certificate of it is in force, neither ended nor revoked, this is refused and names
    those that end last.  Its certificate and its last revocation list stay published.

    A key in a file is destroyed.  One in Vault signs no more; the answer has the commands by which
    those who may delete it there.
    """
    given = {"upstream": upstream, "issuer": issuer}
    _show(ask(config_path, "ca_rotate_retire", given, reason), is_json=is_json)


def _written(made: dict[str, Any], csr_file: Path) -> dict[str, Any]:
    """Write the request to its file, and return what the one who carries it reads aloud."""
    csr_file.write_text(made["csr_pem"], encoding="ascii")
    return {
        "upstream": made["upstream"],
        "request": str(csr_file),
        "spki_sha256": made["spki_sha256"],
    }


def _show(value: Any, *, is_json: bool) -> None:
    if is_json:
        print_json(value)
    else:
        print_pairs(value)
