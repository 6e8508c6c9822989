"""Which DNS providers the library knows, and with which options: read from its files.

Nothing of it is imported.  Ninety providers' code has no business in the broker, not even to be
asked for the names of its options; it runs in a worker process alone.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["missing_packages", "names", "options_of"]

PACKAGE: Final = "lexicon"
DISTRIBUTION: Final = "dns-lexicon"

NOT_PROVIDERS: Final = frozenset({"__init__", "base", "auto"})
"""Modules that are none; ``auto`` guesses the provider by asking DNS, and is given its secrets."""

MAX_INHERITANCE: Final = 4
"""Longest chain of providers that are another under a second name; one is usual."""

_NEED: Final = re.compile(r"([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['\"]([a-z0-9_-]+)['\"]")


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all providers, sorted; none where the library is not installed."""
    folder = _folder()
    if folder is None or not folder.is_dir():
        return ()
    found = {
        path.stem
        for path in folder.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    return tuple(sorted(found - NOT_PROVIDERS - {"__pycache__"}))


@functools.cache
def options_of(name: str) -> frozenset[str]:
    """Return the options of a provider, spelled with underscores."""
    found: set[str] = set()
    for tree in _sources(name):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found |= _named_in(node, node.func.attr)
    return frozenset(found)


def missing_packages(name: str) -> tuple[str, ...]:
    """Return the packages that a provider needs beyond the library and that are not installed."""
    try:
        needs = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return (DISTRIBUTION,)
    matches = (_NEED.match(need) for need in needs)
    wanted = [match[1] for match in matches if match and match[2] == name]
    return tuple(package for package in wanted if not _is_installed(package))


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _folder() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0], "_private", "providers") if places else None


def _sources(name: str) -> Iterator[ast.Module]:
    """Yield the parsed source of a provider, and of the one that it is a second name of."""
    folder = _folder()
    waiting = [name]
    for _ in range(MAX_INHERITANCE):
        if folder is None or not waiting:
            return
        path = folder / f"{waiting[0]}.py"
        path = path if path.is_file() else folder / waiting[0] / "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield tree
        waiting = [
            node.module.rpartition(".")[2]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("lexicon._private.providers.")
        ]


def _named_in(call: ast.Call, function: str) -> set[str]:
    texts = {
        argument.value
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    if function == "add_argument":
        return {text[2:].replace("-", "_") for text in texts if text.startswith("--")}
    if function == "_get_provider_option":
        return {text.replace("-", "_") for text in texts}
    return set()
