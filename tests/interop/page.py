"""docs/interop.md, written from what the last whole run of the matrix came to."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

REPORT: Final = Path(__file__).with_name("report.json")
PAGE: Final = Path(__file__).parents[2] / "docs" / "interop.md"

HEAD: Final = """\
# Clients and CAs

What stock ACME clients did through Penstock at each kind of CA on {date}. `make interop` plays it
again and writes this page from its report; nothing on it is written by hand. `make test` plays each
pair once.

Penstock stood between: the client's challenge was looked for by Penstock, and Penstock proved the
name to the CA by itself. A certificate counts as obtained when its names, key and chain are right
and the CA's own log or table has its serial; as revoked when the CA's own revocation list, or its
status page, says so. Pebble rejected 15 % of good nonces throughout.

| Client | Version |
|---|---|
{clients}

| CA | Version |
|---|---|
{cas}

"""

TAIL: Final = """
Clients that are not played here (acme.sh, win-acme, Proxmox VE, Traefik, cert-manager) are held by
the rules that they read answers by: `tests/e2e/test_stock_rules.py`, one test for each rule, with
the client's name. Lines for pointing clients at Penstock are in [clients](operations/clients.md).
"""

VERSION_OF: Final[Mapping[str, str]] = {
    "certbot": "certbot",
    "certbot of Debian 12": "certbot-debian",
    "acme library": "acme",
    "lego": "lego",
    "dehydrated": "dehydrated",
    "uacme": "uacme",
    "Caddy": "caddy",
    "mod_md": "apache2",
    "Pebble": "pebble",
    "step-ca": "step-ca",
    "Vault PKI": "vault",
}
"""Client or CA → the program whose version it has; the built-in CA is Penstock's own."""

OF_A_CHALLENGE: Final = ("obtain", "renew", "revoke")
CHALLENGES: Final = ("http-01", "dns-01", "tls-alpn-01")
PASSED, FAILED, NOT_OFFERED = "passed", "failed", "not offered"

Row = Mapping[str, Any]


class Notes:
    """Reasons, numbered in the order in which they are first given."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> str:
        """Return the mark that stands for *text*."""
        known = self._numbers.setdefault(text, len(self._numbers) + 1)
        return f"({known})"

    def lines(self) -> list[str]:
        """Return the list of all reasons."""
        return [f"{number}. {text}" for text, number in self._numbers.items()]


def render(report: Mapping[str, Any]) -> str:
    """Return the page."""
    rows: Sequence[Row] = report["rows"]
    clients = list(dict.fromkeys(row["client"] for row in rows))
    cas = list(dict.fromkeys(row["ca"] for row in rows))
    notes = Notes()
    parts = [
        HEAD.format(
            date=report["date"],
            clients=versions(clients, report["versions"]),
            cas=versions(cas, report["versions"]),
        ),
        "## By challenge\n\nA number says why something was not offered: see below.\n\n",
        by_challenge(rows, clients, cas, notes),
        "\n## Everything else\n\nPlayed with one challenge. *All* means every CA.\n\n",
        by_verb(rows, clients, cas, notes),
        "\n## Why not\n\n",
        "\n".join(notes.lines()) + "\n",
        TAIL,
    ]
    return "".join(parts)


def versions(names: Sequence[str], known: Mapping[str, str]) -> str:
    """Return table lines of names with their versions."""
    lines = []
    for name in names:
        program = VERSION_OF.get(name)
        version = "Penstock itself" if program is None else known[program]
        lines.append(f"| {name} | {version} |")
    return "\n".join(lines)


def by_challenge(
    rows: Sequence[Row], clients: Sequence[str], cas: Sequence[str], notes: Notes
) -> str:
    """Return the table of client × challenge × CA."""
    lines = [table_line("Client", "Challenge", *cas), table_line(*["---"] * (2 + len(cas)))]
    for client in clients:
        for challenge in CHALLENGES:
            cells = [
                challenge_cell(
                    [
                        row
                        for row in rows
                        if (row["client"], row["ca"], row["challenge"]) == (client, ca, challenge)
                        and row["verb"] in OF_A_CHALLENGE
                    ],
                    notes,
                )
                for ca in cas
            ]
            lines.append(table_line(client, challenge, *cells))
    return "\n".join(lines) + "\n"


def challenge_cell(rows: Sequence[Row], notes: Notes) -> str:
    """Return what was done by one challenge, and the reasons for what was not."""
    if not rows:
        return "not played"
    reasons = list(dict.fromkeys(row["note"] for row in rows if row["outcome"] == NOT_OFFERED))
    if all(row["outcome"] == NOT_OFFERED for row in rows):
        return f"not offered {' '.join(map(notes.number, reasons))}"
    parts = [", ".join(row["verb"] for row in rows if row["outcome"] == PASSED)]
    for row in rows:
        if row["outcome"] == NOT_OFFERED:
            parts.append(f"{row['verb']} not offered {notes.number(row['note'])}")
        if row["outcome"] == FAILED:
            parts.append(f"**{row['verb']} failed** {notes.number(first_line(row['note']))}")
    return "; ".join(part for part in parts if part)


def by_verb(rows: Sequence[Row], clients: Sequence[str], cas: Sequence[str], notes: Notes) -> str:
    """Return the table of every other verb × client."""
    verbs = list(dict.fromkeys(row["verb"] for row in rows if row["verb"] not in OF_A_CHALLENGE))
    lines = [table_line("", *clients), table_line(*["---"] * (1 + len(clients)))]
    for verb in verbs:
        cells = [
            verb_cell(
                [row for row in rows if (row["client"], row["verb"]) == (client, verb)], cas, notes
            )
            for client in clients
        ]
        lines.append(table_line(verb, *cells))
    return "\n".join(lines) + "\n"


def verb_cell(rows: Sequence[Row], cas: Sequence[str], notes: Notes) -> str:
    """Return at which CAs one verb of one client was done, and the reasons for the others."""
    passed = [row["ca"] for row in rows if row["outcome"] == PASSED]
    reasons = list(dict.fromkeys(row["note"] for row in rows if row["outcome"] == NOT_OFFERED))
    failed = [row for row in rows if row["outcome"] == FAILED]
    if not rows:
        return "not played"
    parts = ["all" if passed == list(cas) else ", ".join(passed)] if passed else []
    if reasons:
        missing = [row["ca"] for row in rows if row["outcome"] == NOT_OFFERED]
        where = f"not at {', '.join(missing)}" if passed else "not offered"
        parts.append(f"{where} {' '.join(map(notes.number, reasons))}")
    for row in failed:
        parts.append(f"**{row['ca']} failed** {notes.number(first_line(row['note']))}")
    return "; ".join(parts)


def first_line(text: str) -> str:
    """Return the first line of a failure, short enough for a list."""
    return f"`{text.splitlines()[0][:120].replace('`', '')}`" if text else "no text"


def table_line(*cells: str) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write docs/interop.md from the report."""
    PAGE.write_text(render(json.loads(REPORT.read_text("utf-8"))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
