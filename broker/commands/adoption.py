"""Commands that take over accounts and keys from elsewhere, and move keys."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.connection import ask
from broker.commands.failures import CommandFailed
from broker.commands.options import as_json, config_option, reason_option
from broker.commands.output import print_json, print_pairs, print_table
from broker.commands.rotation import upstream
from broker.issuance.errors import Broken
from broker.protocol.problems import printable

__all__ = ["upstream"]

BATCH: Final = 40
"""Certificates that are handed over at a time: a command holds 256 KiB, a certificate up to 5."""

MAX_CERTIFICATE_BYTES: Final = 64 * 1024
"""Largest file that is taken for a certificate with its chain, in bytes."""

LIVED_ELSEWHERE: Final = (
    "this key has lived outside of the place where it is now: copies of it may lie in file systems "
    "and backups, and whoever has one speaks for the account"
)

MAX_SENTENCE_CHARS: Final = 2000
"""Longest note that is printed, in characters: a path may have a thousand."""

_files = click.Path(path_type=Path, dir_okay=False)


@upstream.command("adopt")
@click.argument("name")
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--account-url", metavar="URL", help="The account's URL, where PATH does not say it.")
@click.option("--community", metavar="NAME", help="For which community, where there are several.")
@click.option("--replace", is_flag=True, help="Have the account that is ours there give way.")
@click.option("--keep-key", is_flag=True, help="Give it no new key, where a CA cannot change it.")
@click.option("--import-existing", is_flag=True, help="Take the key into Vault as it is.")
@click.option(
    "--certificate",
    "certificates",
    metavar="FILE",
    type=_files,
    multiple=True,
    help="A certificate that it ordered, so that its renewal counts as one; may be repeated.",
)
@reason_option
@config_option
@as_json
def upstream_adopt(
    name: str,
    source: Path,
    certificates: tuple[Path, ...],
    reason: str | None,
    config_path: Path,
    *,
    is_json: bool,
    **given: Any,
) -> None:
    """Take over an account that another client registered at a CA, and give it a new key.

    PATH is certbot's directory of the account (with private_key.json), lego's (with account.json),
    or a file with its key: PEM, JWK, or the manifest of cert-manager's Secret. The key changes to
    where the configuration keeps keys; the old one speaks for the account no more. The
    certificates that certbot renews with it are taken along.
    """
    from broker.keys.foreign_accounts import read_foreign_account
    from broker.keys.importing import pkcs8_of

    try:
        account = read_foreign_account(source)
    except Broken as error:
        raise CommandFailed(error.reason) from error
    texts = [_read_certificate(file) for file in (*account.certificates, *certificates)]
    given |= {
        "upstream": name,
        # Through the socket and no further: neither the command line nor any log shows it.
        "private_key": base64.b64encode(pkcs8_of(account.key)).decode("ascii"),
        "account_url": given["account_url"] or account.url,
        "came_from": f"{account.kept_by}: {account.key_file}",
    }
    made = ask(config_path, "upstream_adopt", given, reason)
    kept = _hand_over(config_path, name, made["community"], texts, reason)
    made |= {"certificates": len(kept), "came_from": str(account.key_file)}
    print_json(made) if is_json else print_pairs(made)
    if made["same_key"]:
        _note(LIVED_ELSEWHERE, is_loud=True)
    else:
        _note(
            f"the key in {account.key_file} lies there still and speaks for the account no more; "
            "the client that used it cannot renew any longer: take its timer away"
        )


@upstream.command("adopt-certificates")
@click.argument("name")
@click.argument("files", metavar="FILE...", type=_files, nargs=-1, required=True)
@click.option("--community", metavar="NAME", help="For which community, where there are several.")
@reason_option
@config_option
@as_json
def upstream_adopt_certificates(
    name: str,
    files: tuple[Path, ...],
    community: str | None,
    reason: str | None,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Take along certificates that an adopted account ordered before it was ours.

    Whoever renews one of them here has that told to the CA (RFC 9773), which counts it as a
    renewal.
    """
    texts = [_read_certificate(file) for file in files]
    kept = _hand_over(config_path, name, community, texts, reason)
    print_json(kept) if is_json else print_table(kept, ["cert_id", "names"])


@upstream.command("revoke")
@click.argument("name")
@click.argument("file", metavar="FILE", type=_files)
@click.option("--community", metavar="NAME", help="For which community, where there are several.")
@click.option("--code", type=int, default=0, show_default=True, help="Reason code of RFC 5280.")
@reason_option
@config_option
@as_json
def upstream_revoke(
    name: str, file: Path, reason: str | None, config_path: Path, *, is_json: bool, **given: Any
) -> None:
    """Revoke a certificate that our account ordered before it was ours."""
    given |= {"upstream": name, "certificate": _read_certificate(file)}
    made = ask(config_path, "upstream_revoke", given, reason)
    print_json(made) if is_json else print_pairs(made)


@upstream.command("move-key")
@click.argument("name")
@click.option("--to", metavar="PLACE", required=True, help="vault:MOUNT, or file.")
@click.option("--community", metavar="NAME", help="For our account for this community only.")
@click.option(
    "--import-existing",
    is_flag=True,
    help="Take the very key into Vault instead of a new one; its copies stay good.",
)
@click.option("--destroy-old", is_flag=True, help="Remove the file of the key that was.")
@reason_option
@config_option
@as_json
def upstream_move_key(
    name: str, reason: str | None, config_path: Path, *, is_json: bool, **given: Any
) -> None:
    """Have the key of our account at a CA be where the configuration says that keys are kept.

    The account gets a new key, made there; orders that are under way go on. Set account_key.store
    first. Cut off anywhere, the same command goes on.
    """
    rows = ask(config_path, "upstream_move_key", {"upstream": name, **given}, reason)
    if is_json:
        print_json(rows)
    else:
        print_table(rows, ["upstream", "community", "key", "old_key", "old_key_destroyed"])
    for row in rows:
        if row["same_key"]:
            way_out = f"for a new one: penstock upstream rotate-key {name}"
            _note(f"{row['key']}: {LIVED_ELSEWHERE}; {way_out}", is_loud=True)
        elif not row["old_key_destroyed"]:
            _note(f"key '{row['old_key']}' speaks for the account no more, and lies where it was")


def _hand_over(
    config_path: Path, name: str, community: str | None, texts: Sequence[str], reason: str | None
) -> list[dict[str, Any]]:
    """Tell the broker of certificates, not more of them at a time than a command may hold."""
    kept: list[dict[str, Any]] = []
    for start in range(0, len(texts), BATCH):
        given = {
            "upstream": name,
            "community": community,
            "certificates": list(texts[start : start + BATCH]),
        }
        kept += ask(config_path, "upstream_adopt_certificates", given, reason)
    return kept


def _read_certificate(path: Path) -> str:
    """Return the first certificate of a PEM file, which is the leaf."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CERTIFICATE_BYTES).decode("ascii", "replace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{path} cannot be read: {reason}") from error
    end = "-----END CERTIFICATE-----"
    begin = content.find("-----BEGIN CERTIFICATE-----")
    if begin < 0 or end not in content[begin:]:
        raise CommandFailed(f"{path} has no certificate in PEM")
    return content[begin : content.index(end, begin) + len(end)] + "\n"


def _note(sentence: str, *, is_loud: bool = False) -> None:
    word = "warning" if is_loud else "note"
    click.echo(f"penstock: {word}: {printable(sentence, MAX_SENTENCE_CHARS)}", err=True)
