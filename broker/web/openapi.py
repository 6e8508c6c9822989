"""The operator API as OpenAPI 3.1 describes it, written from the types of the commands.

What stands here by hand is what the types do not say: how people prove who they are, and what a
refusal looks like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from broker.web.rights import RIGHTS
from broker.web.routes import REASON, ROOT, Route, routes
from broker.web.shapes import Schema, schema_of

__all__ = ["DESCRIPTION_PATH", "describe", "description_text"]

DESCRIPTION_PATH: Final = f"{ROOT}/openapi.json"
"""Where the description is served."""

API_VERSION: Final = "1.0.0"
"""Version of the API, which is not the broker's: it rises when paths or types do."""

PROBLEM: Final = "Problem"

_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "Why it was not done (RFC 9457).",
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, in a sentence."},
        "hint": {"type": ["string", "null"], "description": "What can be done about it."},
    },
    "required": ["type", "title", "status", "detail"],
}

_REFUSALS: Final = {
    "400": "the arguments do not fit",
    "401": "nobody known has asked",
    "403": "this person may not, there is nothing of that name in a community of theirs, or a "
    "page of another site had a browser ask",
    "409": "somebody else changed it meanwhile",
    "422": "it cannot be done as asked",
    "429": "too often",
    "500": "the broker failed",
    "503": "something that it takes cannot be reached now",
}
"""Status → what it means, for every command."""

_ABOUT: Final = """\
The commands of `penstock`, for programs and from elsewhere. Every path is in the words of the
command line: `penstock order list` is `GET /v1/order/list`. What changes nothing and takes nothing
but single words is a GET with a query; all else is a POST with a JSON object, which may have a
`reason` that is kept with the event.

Whoever asks shows a client certificate, or an access token of a configured OpenID provider in the
`Authorization` header. Which roles a command takes is told with it (`x-penstock-roles`), and
whether they have to be held in a community or everywhere (`x-penstock-place`).

Members may be added to answers; a client leaves alone what it does not know.
"""


def describe(summaries: Mapping[str, str]) -> dict[str, Any]:
    """Return the description; *summaries* tell in a sentence what each command does."""
    definitions: dict[str, Schema] = {PROBLEM: _PROBLEM}
    paths: dict[str, Any] = {}
    for route in routes():
        operation = _operation(route, summaries.get(route.command, ""), definitions)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock operator API",
            "version": API_VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"certificate": []}, {"token": []}],
        "tags": [{"name": name} for name in sorted({_tag(route) for route in routes()})],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(definitions.items())),
            "responses": {status: _refusal(text) for status, text in _REFUSALS.items()},
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "a client certificate under operators.anchors",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "an access token (RFC 9068) of one of operators.issuers",
                },
            },
        },
    }


def description_text(summaries: Mapping[str, str]) -> str:
    """Return the description as it is served, and kept beside the documentation."""
    return json.dumps(describe(summaries), indent=1, ensure_ascii=False) + "\n"


def _tag(route: Route) -> str:
    return route.path.split("/")[2]


def _operation(route: Route, summary: str, definitions: dict[str, Schema]) -> dict[str, Any]:
    right = RIGHTS[route.command]
    made: dict[str, Any] = {
        "operationId": route.command,
        "tags": [_tag(route)],
        "x-penstock-roles": sorted(right.roles),
        "x-penstock-place": _place(route.command),
    }
    if summary:
        made["summary"] = summary
    if route.method == "GET":
        made["parameters"] = [
            {
                "name": one.name,
                "in": "query",
                "required": one.is_required,
                "schema": _with_default(schema_of(one.shape, definitions), one.default),
            }
            for one in route.arguments.values()
        ]
    else:
        made["requestBody"] = _body(route, definitions)
    made["responses"] = {
        "200": {
            "description": "done",
            "content": {"application/json": {"schema": schema_of(route.answer, definitions)}},
        },
        **{status: {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS},
    }
    return made


def _body(route: Route, definitions: dict[str, Schema]) -> dict[str, Any]:
    properties = {
        one.name: _with_default(schema_of(one.shape, definitions), one.default)
        for one in route.arguments.values()
    }
    if route.is_changing:
        properties[REASON] = {"type": ["string", "null"], "maxLength": 500}
    required = [one.name for one in route.arguments.values() if one.is_required]
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    } | ({"required": required} if required else {})
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}},
    }


def _with_default(schema: Schema, default: object) -> Schema:
    if default is None or isinstance(default, str | int | float | bool):
        return {**schema, "default": default}
    return schema


def _place(command: str) -> str:
    right = RIGHTS[command]
    if right.by_rows:
        return "rows"
    return "community" if right.references else "everywhere"


def _refusal(text: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{PROBLEM}"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}
