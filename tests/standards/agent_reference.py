"""The page of the agent's configuration, written from the code that reads it.

Which keys there are, of what kind and with which default, is taken from ``agents/loading.py``; what
they mean from the docstrings in ``agents/config.py``.  A key without a meaning is a fault.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import agents.config
from tests.standards.sources import tree

__all__ = ["SECTIONS", "keys_of", "page"]

HEAD: Final = """\
# Configuration of the agent

<!-- Written from agents/config.py and agents/loading.py; `make golden` writes it anew. -->

One TOML file, `/etc/penstock/agent.toml` unless `--config` says otherwise; beside it, each
`agent.d/*.toml` may hold more `[[certificate]]` and `[[bundle]]` sections. It is checked whole, at
the start and when the agent is told to reload: all faults are told together, each with file and
key, and unknown keys are refused. Durations are text with a unit (`90d`, `30s`). Secrets are
references: `file:PATH` or `env:NAME`; a path that is not absolute lies in
`$CREDENTIALS_DIRECTORY`, where systemd puts credentials. What the agent does with all this is told
in [agents](agents.md).
"""

SECTIONS: Final = (
    ("[node]", "_node", "NodeSection"),
    ("[broker]", "_broker", "BrokerSection"),
    ("[enrol]", "_enrol", "EnrolSection"),
    ("[[certificate]]", "_certificate", "CertificateSection"),
    ("[certificate.key]", "_key", "KeySection"),
    ("[certificate.files]", "_files", "FilesSection"),
    ("[certificate.reload]", "_reload", "ReloadSection"),
    ("[certificate.look]", "_look", "LookSection"),
    ("[certificate.expects]", "_expects", "ExpectsSection"),
    ("[certificate.driver]", "_driver", "DriverSection"),
    ("[[bundle]]", "_bundle", "BundleSection"),
    ("[challenges]", "_challenges", "ChallengesSection"),
)
"""Each section, the function that reads it and the class that it is kept in."""

KINDS: Final = {
    "text": "text",
    "texts": "list of text",
    "path": "absolute path",
    "number": "number",
    "duration": "duration",
    "optional_duration": "duration",
    "is_true": "true or false",
}

FURTHER: Final = {
    ("_certificate", "name"): ("text", "required"),
    ("_bundle", "name"): ("text", "required"),
    ("_look", "connect"): ("`HOST:PORT`", "required"),
    ("_expects", "anchors"): ("absolute path, or `unchecked`", "required"),
}
"""Keys that are read by a function of their own, or stand for two values: kind and default."""

FALLBACKS: Final = {
    "KeySection": "which key is made, and where it is kept.",
    "FilesSection": "where key and chain are written.",
}
"""What sections hold whose class says no more than their name."""

MEANINGS: Final = {("LookSection", "connect"): "The address of the server that is asked."}
"""Keys that have no field of their own name."""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, function, kept in SECTIONS:
        parts.append(f"## `{title}`\n")
        told = _sentence(ast.get_docstring(_class(kept)) or "")
        # "``[node]``: the host itself." without the name of the section, which is the heading.
        told = told.partition(": ")[2] or FALLBACKS[kept]
        parts.append(told[:1].upper() + told[1:] + "\n")
        rows = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
        for key, kind, default in keys_of(function, getattr(agents.config, kept)):
            meaning = _meaning(kept, key)
            rows.append(f"| `{key}` | {kind} | {default} | {meaning} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def keys_of(function: str, kept: Any) -> Iterator[tuple[str, str, str]]:
    """Yield key, kind and default of what a function of ``agents/loading.py`` reads.

    In the order of the class that it is kept in.
    """
    seen: dict[str, tuple[str, str]] = {
        key: value for (where, key), value in FURTHER.items() if where == function and key == "name"
    }
    for node in ast.walk(_function(function)):
        if not isinstance(node, ast.Call):
            continue
        found = _read_call(node)
        if found is not None:
            key, kind, default = found
            seen.setdefault(key, FURTHER.get((function, key), (kind, default)))
    fields = {field.name: field for field in dataclasses.fields(kept)}
    places = {"connect": 0} | {name: place for place, name in enumerate(fields, start=1)}
    for key in sorted(seen, key=lambda one: places.get(one, 0)):
        kind, default = seen[key]
        is_off = key in fields and fields[key].default is None and default.startswith("`")
        yield key, kind, "none" if is_off else default


def _read_call(node: ast.Call) -> tuple[str, str, str] | None:
    function = node.func
    if isinstance(function, ast.Name) and function.id == "_section":
        return str(ast.literal_eval(node.args[1])), "section", ""
    if not isinstance(function, ast.Attribute) or not _is_table(function.value):
        return None
    name = function.attr
    if name not in KINDS and name != "choice":
        return None
    key = str(ast.literal_eval(node.args[0]))
    if name == "choice":
        member = _evaluate(node.args[1])
        values = ", ".join(f"`{one.value}`" for one in type(member))
        return key, values, f"`{member.value}`"
    given = {each.arg: each.value for each in node.keywords}
    if len(node.args) > 1:
        default = _shown(_evaluate(node.args[1]))
    elif "default" in given:
        default = _shown(_evaluate(given["default"]))
    else:
        is_needed = ast.unparse(given["is_needed"]) if "is_needed" in given else "False"
        default = {"True": "required", "False": "none"}.get(is_needed, "required for the method")
    return key, KINDS[name], default


def _is_table(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"table", "below"}


def _evaluate(node: ast.expr) -> Any:
    """Return the value of a default: a constant, a duration, a member of an enum, or a word."""
    source = ast.unparse(node)
    names = {**vars(agents.config), "DEFAULT_STATE": "/var/lib/penstock-agent"}
    names |= {"name": _Word("the certificate's name"), "plain": _Word("the first name")}
    return eval(source, {"__builtins__": {}}, names)  # our own source, read by a test


class _Word(str):
    """What a default that depends on something is called."""

    __slots__ = ()


def _shown(value: Any) -> str:
    if isinstance(value, _Word):
        return str(value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, StrEnum):
        return f"`{value.value}`"
    if hasattr(value, "total_seconds"):
        seconds = int(value.total_seconds())
        return (
            "none" if not seconds else f"`{seconds // 60}m`" if seconds >= 120 else f"`{seconds}s`"
        )
    return f"`{value}`" if value not in ("", None) else "none"


def _meaning(kept: str, key: str) -> str:
    if (kept, key) in MEANINGS:
        return MEANINGS[kept, key]
    body = _class(kept).body
    for place, node in enumerate(body[:-1]):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == key:
            after = body[place + 1]
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return _sentence(str(after.value.value))
    last = body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant):
        before = body[-2]
        if isinstance(before, ast.AnnAssign) and ast.unparse(before.target) == key:
            return _sentence(str(last.value.value))
    raise AssertionError(f"{kept}.{key} has no docstring in agents/config.py")


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return words.replace("``", "`").replace("None: ", "without it, ").replace("|", "\\|")


def _class(name: str) -> ast.ClassDef:
    (found,) = (
        node
        for node in tree("agents/config.py").body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return found


def _function(name: str) -> ast.FunctionDef:
    (found,) = (
        node
        for node in tree("agents/loading.py").body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return found
