"""The configuration's documentation, written from its types.

docs/configuration.md and docs/sample/penstock.yaml come from here; a test compares them.  Nothing
about a key is said in two places.
"""

from __future__ import annotations

import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from broker.config.admission import AdmissionConfig
from broker.config.model import Config
from broker.config.section import Section
from broker.config.values import (
    AbsolutePath,
    Address,
    CaaIdentity,
    EndpointText,
    ExternalUrl,
    HttpsUrl,
    HttpUrl,
    KeyStoreText,
    MountText,
    Network,
    ResolverText,
    Secret,
    VaultKeyText,
)
from broker.policy.units import Duration, RateText, Size

__all__ = ["admission_page", "reference_page", "sample_file"]

COMMENT_WIDTH: Final = 96
"""Longest line of a comment in the sample, in characters."""

EXAMPLE_NAMES: Final = {
    "Community": ("default",),
    "BuiltinUpstream": ("local",),
    "AcmeUpstream": ("lets-encrypt",),
    "CaProfileSection": ("server", "node"),
    "MountIdentities": ("transit-ca",),
    "ClusterSection": ("prod",),
    "RolloutGroup": ("web",),
    "PersonSection": ("jane",),
    "TokenIssuerSection": ("corp",),
    "AuditSyslog": ("collector",),
    "AuditFile": ("shipped",),
    "AuditStdout": ("container",),
}
"""Names that things have in the sample."""

EMPTY: Final[Mapping[str, object]] = {}
"""No examples but those of the keys themselves."""

_KINDS: Final[dict[str, Any]] = {
    "duration": Duration,
    "size": Size,
    "rate": RateText,
    "secret reference": Secret,
    "host:port": EndpointText,
    "address:port": ResolverText,
    "absolute path": AbsolutePath,
    "network": Network,
    "IP address": Address,
    "https URL": HttpsUrl,
    "http or https URL": HttpUrl,
    "external URL": ExternalUrl,
    "domain name": CaaIdentity,
    "mount": MountText,
    "mount/name": VaultKeyText,
    "`file` or `vault:MOUNT`": KeyStoreText,
}


def reference_page() -> str:
    """Return the Markdown page that lists every key."""
    parts = [
        "# Configuration\n",
        "<!-- Written from broker/config; `make help-text` writes it anew. -->\n",
        "One YAML file, `/etc/penstock/penstock.yaml` unless `--config` or `PENSTOCK_CONFIG` says",
        "otherwise. It is read once and checked whole: `penstock check` tells every fault with its",
        "line. Unknown keys are refused. Durations and sizes are text with a unit (`90d`,",
        "`64KiB`), secrets are references (`file:/path`, `env:NAME` or `vault:MOUNT/PATH#FIELD`),",
        "see [secrets](operations/secrets.md).",
        "A file that shows every key is [sample/penstock.yaml](sample/penstock.yaml).\n",
        *_tables(Config, "", set()),
    ]
    return "\n".join(parts) + "\n"


def admission_page() -> str:
    """Return the Markdown page that lists every key of the file of ``penstock admission``."""
    parts = [
        "# Configuration of admission\n",
        "<!-- Written from broker/config; `make help-text` writes it anew. -->\n",
        "The YAML file of `penstock admission`, which puts agents into the pods of a cluster",
        "([pods with annotations](operations/sidecars.md)). The chart writes it; it is read once,",
        "checked whole, and unknown keys are refused. Values are written as in the broker's own",
        "[configuration](configuration.md).\n",
        *_tables(AdmissionConfig, "", set()),
    ]
    return "\n".join(parts) + "\n"


def sample_file() -> str:
    """Return a configuration that shows every key with its meaning, and is valid."""
    head = [
        "# A configuration that shows every key. Most of them may be left out.",
        "# Written from broker/config; `make help-text` writes it anew.",
        "",
    ]
    return "\n".join([*head, *_sample(Config, 0)]) + "\n"


def _tables(section: type[Section], path: str, done: set[str]) -> Iterator[str]:
    """Yield the table of *section* and of all that stand below it."""
    if section.__name__ in done:
        return
    done.add(section.__name__)
    yield f"## {f'`{path}`' if path else 'Top level'}\n"
    yield _flat(section.__doc__) + "\n"
    yield "| Key | Value | Default | Meaning |\n|---|---|---|---|"
    below: list[tuple[type[Section], str]] = []
    for name, field in section.model_fields.items():
        key = field.alias or name
        sections, container = _sections(field.annotation)
        place = f"{path}.{key}" if path else key
        place += {"dict": ".NAME", "tuple": "[]", "": ""}[container]
        below += [(each, place) for each in sections]
        kind = _kind(field, sections, container)
        cells = (f"`{key}`", kind, _default(field, bool(sections)), _flat(field.description))
        yield f"| {' | '.join(cells)} |"
    yield ""
    for each, place in below:
        tag = next(iter(each.model_fields))
        several = len([1 for other, where in below if where == place]) > 1
        word = typing.get_args(each.model_fields[tag].annotation)
        told = f"{tag}: {word[0]}{_way(each)}" if several else ""
        yield from _tables(each, f"{place} ({told})" if several else place, done)


def _way(section: type[Section]) -> str:
    """Return what tells apart members of a union that have the same word: their own section."""
    own = [
        name
        for name, field in section.model_fields.items()
        if field.is_required() and _sections(field.annotation)[0]
    ]
    return f", {own[0]}" if own else ""


def _sample(
    section: type[Section], indent: int, given: Mapping[str, object] = EMPTY
) -> Iterator[str]:
    """Yield the lines of a section; *given* are examples that hold for it where it stands."""
    pad = " " * indent
    for name, field in section.model_fields.items():
        key = field.alias or name
        width = COMMENT_WIDTH - indent - 2
        for line in textwrap.wrap(_flat(field.description).replace("`", "'"), width):
            yield f"{pad}# {line}"
        sections, container = _sections(field.annotation)
        extra = field.json_schema_extra
        mark = "# " if isinstance(extra, dict) and extra.get("instead") else ""
        if not sections:
            example = given[key] if key in given else _example(section, field)
            yield f"{pad}{mark}{key}: {json.dumps(example)}"
            continue
        yield f"{pad}{mark}{key}:"
        # Of a section that can be one of several, one can stand there: the first.
        for each in sections if container else sections[:1]:
            lines = _sample_of(each, container, indent + 2, _inside(field))
            yield from (f"{pad}{mark}{line[indent:]}" for line in lines)


def _inside(field: FieldInfo) -> Mapping[str, object]:
    """Return the examples that hold inside the section that a key takes."""
    extra = field.json_schema_extra
    found = extra.get("inside") if isinstance(extra, dict) else None
    return found if isinstance(found, dict) else EMPTY


def _sample_of(
    section: type[Section], container: str, indent: int, given: Mapping[str, object]
) -> Iterator[str]:
    pad = " " * indent
    if container == "dict":
        for name in EXAMPLE_NAMES[section.__name__]:
            yield f"{pad}{name}:"
            yield from _sample(section, indent + 2)
    elif container == "tuple":
        lines = list(_sample(section, indent + 2))
        first = next(place for place, line in enumerate(lines) if not line.lstrip().startswith("#"))
        comments = [line[2:] for line in lines[:first]]
        yield from comments
        yield f"{pad}- {lines[first].lstrip()}"
        yield from lines[first + 1 :]
    else:
        yield from _sample(section, indent, given)


def _example(section: type[Section], field: FieldInfo) -> object:
    if field.examples:
        return field.examples[0]
    words = typing.get_args(field.annotation)
    if typing.get_origin(field.annotation) is typing.Literal and field.is_required():
        return words[0]
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        raise ValueError(f"{section.__name__} has a key without default and example")
    return _written(field, value)


def _written(field: FieldInfo, value: object) -> object:
    annotation: Any = field.annotation
    for each in field.metadata:
        annotation = typing.Annotated[annotation, each]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    return adapter.dump_python(value, mode="json")


def _default(field: FieldInfo, is_section: bool) -> str:
    if field.is_required():
        return "required"
    if is_section:
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return "none"
    return f"`{json.dumps(_written(field, value))}`"


def _sections(annotation: Any) -> tuple[list[type[Section]], str]:
    """Return the sections in a key's type, and whether they stand in a mapping or a list."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation], ""
    if origin in (dict, tuple):
        inner = arguments[1] if origin is dict else arguments[0]
        return _sections(inner)[0], origin.__name__
    if origin is typing.Annotated:
        return _sections(arguments[0])
    if origin in (typing.Union, types.UnionType):
        found = [_sections(each) for each in arguments]
        return [each for some, _ in found for each in some], ""
    return [], ""


def _kind(field: FieldInfo, sections: Sequence[type[Section]], container: str) -> str:
    if sections:
        return {"dict": "mapping by name", "tuple": "list", "": "section"}[container]
    annotation: Any = field.annotation
    for each in field.metadata:
        annotation = typing.Annotated[annotation, each]
    return _schema_kind(TypeAdapter(annotation).json_schema())


def _schema_kind(schema: dict[str, Any], defined: Mapping[str, Any] = EMPTY) -> str:
    defined = schema.get("$defs", defined)
    schema = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    if "$ref" in schema:
        schema = defined[schema["$ref"].rpartition("/")[2]]
    for name, kind in _KINDS.items():
        if schema == TypeAdapter(kind).json_schema():
            return name
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema:
        one = next(each for each in schema["anyOf"] if each.get("type") != "null")
        return _schema_kind(one, defined)
    if schema.get("type") == "array":
        return f"list of {_schema_kind(schema['items'], defined)}"
    if schema.get("type") == "object":
        return f"mapping to {_schema_kind(schema['additionalProperties'], defined)}"
    words = {
        "string": "text",
        "integer": "number",
        "number": "number",
        "boolean": "`true` or `false`",
    }
    return words[schema["type"]]


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())
