"""The pages of the chart that are written from elsewhere: its README, and a part of its schema.

``values.yaml`` documents each value in place, by a comment that begins with ``# --``; the README's
table is made of those.  What ``values.schema.json`` says of ``config`` is made of the broker's own
types, everything else in it is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from broker.config.model import Config

__all__ = ["CHART", "FREE", "Value", "config_schema", "documented_values", "readme", "values"]

CHART: Final = Path(__file__).resolve().parents[2] / "helm" / "penstock"

PREFIX: Final = "penstock.yaml"
"""What the names of generated definitions begin with."""

FREE: Final = frozenset({"config", "policies.files", "resources", "admission.resources"})
"""Values that are documented as a whole: what is in them is another document's."""

NULL: Final = {"type": "null"}

_ENTRY: Final = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):(?: +(.*))?")
_TEMPLATE: Final = r"\{\{"
_NOT_KEPT: Final = frozenset({"title", "default", "examples", "description", "instead", "inside"})

TOP: Final = """\
# penstock

<!-- Written from values.yaml; `make golden` writes it anew. -->

The chart of Penstock: the broker, what puts sidecars into pods, and what belongs to them. How it
is run is told in [the chart in operation](../../docs/operations/chart.md), why it is so in
[the decision](../../docs/adr/0034-the-chart.md).

```sh
helm install penstock helm/penstock --namespace penstock --create-namespace
```

Values that contradict each other stop the installation with a sentence; `values.schema.json`
refuses what no value may be. Secrets are never values: they are names of Secrets that are there
already. The sidecar as a template for other charts is in
[charts/penstock-lib](charts/penstock-lib/templates/_sidecar.tpl), with
[examples](../examples/README.md).

## Values

| Key | Default | Meaning |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One documented value."""

    path: str
    default: Any
    text: str


def values() -> dict[str, Any]:
    """Return the chart's default values."""
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(
        (CHART / "values.yaml").read_text("utf-8")
    )
    return found


def documented_values() -> list[Value]:
    """Return what ``# --`` comments say, in the order of the file."""
    return list(_documented((CHART / "values.yaml").read_text("utf-8").splitlines(), values()))


def _documented(lines: list[str], defaults: Mapping[str, Any]) -> Iterator[Value]:
    parents: list[tuple[int, str]] = []
    text: list[str] = []
    for line in lines:
        comment = line.strip()
        if comment.startswith("# -- "):
            text = [comment.removeprefix("# -- ")]
        elif text and comment.startswith("# "):
            text.append(comment.removeprefix("# "))
        elif match := _ENTRY.fullmatch(line):
            indent = len(match[1])
            while parents and parents[-1][0] >= indent:
                parents.pop()
            path = ".".join([*(name for _, name in parents), match[2]])
            parents.append((indent, match[2]))
            if text:
                yield Value(path, _at(defaults, path), " ".join(text))
            text = []
        else:
            text = []


def _at(defaults: Mapping[str, Any], path: str) -> Any:
    found: Any = defaults
    for part in path.split("."):
        found = found[part]
    return found


def readme() -> str:
    """Return the chart's README."""
    return TOP + "".join(f"{_row(one)}\n" for one in documented_values())


def _row(value: Value) -> str:
    default = "see values.yaml" if value.path in FREE else f"`{json.dumps(value.default)}`"
    if len(default) > 120:
        default = "see values.yaml"
    return f"| `{value.path}` | {default} | {value.text.replace('|', chr(92) + '|')} |"


# ---------------------------------------------------------------------------------- the schema


def config_schema() -> dict[str, Any]:
    """Return the definitions by which the value ``config`` is checked, by name."""
    made = Config.model_json_schema(by_alias=True, ref_template=f"#/definitions/{PREFIX}.{{model}}")
    parts = {f"{PREFIX}.{name}": _bare(each) for name, each in made.pop("$defs").items()}
    top = _bare(made)
    # What the chart adds itself may be left out.
    top["required"] = ["apiVersion", "kind", "external_url", "upstreams"]
    for name in ("Listen", "TrustConfigMap"):
        parts[f"{PREFIX}.{name}"].pop("required", None)
    return {PREFIX: top, **dict(sorted(parts.items()))}


def _bare(schema: Any, *, is_names: bool = False) -> Any:
    """Return *schema* without what checks nothing, in which a text may be a template."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: _bare(each, is_names=key in {"properties", "patternProperties"})
        for key, each in schema.items()
        if is_names or key not in _NOT_KEPT
    }
    if not is_names and NULL in made.get("anyOf", ()):
        # Helm takes keys out that are null, and says of each choice why it was not met.
        choices = [one for one in made.pop("anyOf") if one != NULL]
        made |= choices[0] if len(choices) == 1 else {"anyOf": choices}
    if not is_names and isinstance(made.get("pattern"), str):
        made |= _pattern(made["pattern"])
    return made


def _pattern(text: str) -> dict[str, Any]:
    """Return what checks a text by *text* in Helm, whose regular expressions cannot look ahead.

    Ours do so only to say that there is something.
    """
    made = {"pattern": f"{_TEMPLATE}|{text.replace('(?=[0-9])', '')}", "minLength": 1}
    if "(?=" in made["pattern"] or "(?!" in made["pattern"] or "(?<" in made["pattern"]:
        raise ValueError(f"Helm cannot read {text}")
    return made
