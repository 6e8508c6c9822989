"""What a command prints: tables and pairs for people, JSON for programs.

Text that came from clients or CAs is escaped, so that no name steers a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from broker.protocol.problems import printable

__all__ = ["print_json", "print_pairs", "print_rows", "print_table", "shown"]


def print_json(value: object) -> None:
    """Print *value* as JSON, keys in the order they came."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print the *columns* of *rows* under their names; nothing but the names when there is none."""
    lines = [[name.upper().replace("_", " ") for name in columns]]
    lines += [[shown(row.get(name)) for name in columns] for row in rows]
    _print_aligned(lines)


def print_rows(name: str, rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* of as many texts each, which are `shown` already, aligned below *name*."""
    click.echo(f"{name.replace('_', ' ')}:")
    _print_aligned(rows, "  ")


def print_pairs(value: Mapping[str, Any], indent: int = 0) -> None:
    """Print names and values, a line each; what holds more is put below, indented."""
    width = max((len(name) for name in value), default=0) + 1
    pad = " " * indent
    for name, held in value.items():
        label = f"{name.replace('_', ' ')}:"
        if isinstance(held, Mapping) and held:
            click.echo(f"{pad}{label}")
            print_pairs(held, indent + 2)
        elif isinstance(held, list) and held and isinstance(held[0], Mapping):
            click.echo(f"{pad}{label}")
            for number, each in enumerate(held):
                if number:
                    click.echo(f"{pad}  --")
                print_pairs(each, indent + 2)
        elif isinstance(held, str) and "\n" in held.strip():
            click.echo(f"{pad}{label}")
            click.echo(held.rstrip("\n"))
        else:
            click.echo(f"{pad}{label.ljust(width)} {shown(held)}")


def _print_aligned(lines: Sequence[Sequence[str]], pad: str = "") -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(pad + "  ".join(cells).rstrip())


def shown(value: object) -> str:
    """Return *value* on one line, without what would steer a terminal."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(shown(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(held)}" for name, held in value.items())
    return printable(str(value))
