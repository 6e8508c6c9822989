"""The project's own files, read once for the tests in this folder."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PRODUCT = ("broker", "agents")
"""The import packages that are installed."""


def product_files() -> list[Path]:
    """Return every Python file of the product, relative to the repository."""
    return sorted(
        path.relative_to(REPOSITORY)
        for package in PRODUCT
        for path in (REPOSITORY / package).rglob("*.py")
    )


def read(path: Path | str) -> str:
    """Return the text of a file named relative to the repository."""
    return (REPOSITORY / path).read_text(encoding="utf-8")


@functools.cache
def tree(path: Path | str) -> ast.Module:
    """Return the syntax tree of a file named relative to the repository."""
    return ast.parse(read(path), str(path))


@functools.cache
def functions(path: Path) -> tuple[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef], ...]:
    """Return each function of a file with its name as one would write it: ``Class.method``."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child  # type: ignore[misc]
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    return tuple(walk(tree(path), ""))


def table_rows(path: Path | str, first_column: str) -> list[list[str]]:
    """Return the cells of every Markdown table whose first heading is *first_column*."""
    rows: list[list[str]] = []
    inside = False
    for line in read(path).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == first_column:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            rows.append(cells)
    return rows
