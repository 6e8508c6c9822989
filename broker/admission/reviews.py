"""What an API server asks and is answered: ``AdmissionReview`` of admission.k8s.io/v1, as values.

Pure.  Nothing of a request is believed to have a shape: whoever reaches the port can send it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.admission.denials import Malformed
from broker.protocol.encoding import parse_json_object
from broker.protocol.problems import Problem, printable

__all__ = ["Admitted", "Asked", "Outcome", "format_review", "members", "parse_review", "text_of"]

API_VERSION: Final = "admission.k8s.io/v1"
"""The one version that is spoken; every supported cluster does."""

MAX_MESSAGE_CHARS: Final = 1_500
"""Longest sentence, in characters: an event shows 1,024, a terminal all of it."""

MAX_WARNING_CHARS: Final = 256
"""Longest warning, in characters: API servers cut at 256 (k8s.io/apiserver, warning.AddWarning)."""

Operation = Mapping[str, Any]
"""One operation of a JSON patch (RFC 6902 §4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the API server asks about."""

    uid: str
    kind: str
    """Such as ``Pod``."""
    sub_resource: str
    operation: str
    namespace: str
    name: str
    """Empty where the server makes one up."""
    is_dry_run: bool
    document: Mapping[str, Any]
    """The object as it would be; empty where it is deleted."""
    former: Mapping[str, Any] = field(default_factory=dict)
    """The object as it is; empty where it is made."""


class Outcome:
    """How requests end, as metrics and log lines call it."""

    INJECTED: Final = "injected"
    UNTOUCHED: Final = "untouched"
    ACCEPTED: Final = "accepted"
    REFUSED: Final = "refused"
    UNANSWERED: Final = "unanswered"
    """Refused because the broker, or a part of ours, could not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What is answered."""

    outcome: str
    message: str = ""
    """Why not; empty where it is let through."""
    code: int = 403
    """HTTP status of a refusal."""
    patch: Sequence[Operation] = ()
    warnings: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """For the API server's own audit log."""

    @property
    def is_allowed(self) -> bool:
        """Whether the object is let through."""
        return not self.message


def parse_review(body: bytes) -> Asked:
    """Return what *body* asks.

    Raises:
        Malformed: It is no review that an API server sends.
    """
    try:
        review = parse_json_object(body, what="review")
    except Problem as problem:
        raise Malformed(problem.detail) from None
    if review.get("apiVersion") != API_VERSION or review.get("kind") != "AdmissionReview":
        raise Malformed(f"expected an AdmissionReview of {API_VERSION}")
    request = members(review, "request")
    uid = text_of(request, "uid")
    if not uid or len(uid) > 100:
        raise Malformed("request has no uid")
    return Asked(
        uid=uid,
        kind=text_of(members(request, "kind"), "kind"),
        sub_resource=text_of(request, "subResource"),
        operation=text_of(request, "operation"),
        namespace=text_of(request, "namespace"),
        name=text_of(request, "name"),
        is_dry_run=request.get("dryRun") is True,
        document=members(request, "object"),
        former=members(request, "oldObject"),
    )


def members(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object *name* of *document*, an empty one where there is none or null.

    Raises:
        Malformed: Something else stands there.
    """
    found = document.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed(f"'{name}' is no object")
    return found


def text_of(document: Mapping[str, Any], name: str) -> str:
    """Return the text *name* of *document*, an empty one where there is none or null.

    Raises:
        Malformed: Something else stands there.
    """
    found = document.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Malformed(f"'{name}' is no text")
    return found


def format_review(uid: str, admitted: Admitted) -> bytes:
    """Return the body of the answer to the request *uid*."""
    response: dict[str, Any] = {"uid": uid, "allowed": admitted.is_allowed}
    if not admitted.is_allowed:
        message = printable(admitted.message, MAX_MESSAGE_CHARS)
        response["status"] = {"code": admitted.code, "message": message}
    elif admitted.patch:
        patch = json.dumps(list(admitted.patch), separators=(",", ":")).encode("ascii")
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(patch).decode("ascii")
    if admitted.warnings:
        response["warnings"] = [printable(one, MAX_WARNING_CHARS) for one in admitted.warnings]
    if admitted.notes:
        response["auditAnnotations"] = dict(admitted.notes)
    review = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return json.dumps(review, separators=(",", ":")).encode("ascii")
