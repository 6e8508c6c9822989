"""What an API server asks, and how it is answered."""

import base64
import json
from typing import Any

import pytest

from broker.admission.denials import Malformed
from broker.admission.reviews import (
    Admitted,
    Outcome,
    format_review,
    members,
    parse_review,
    text_of,
)
from tests.fakes.pods import patched, pod, review


def parsed(document: Any) -> Any:
    """Return what such a review asks."""
    return parse_review(json.dumps(document).encode())


def test_a_review_is_read() -> None:
    """With what is asked about."""
    asked = parsed(review(pod(), dryRun=True, name="web-0", subResource=""))
    assert (asked.kind, asked.operation, asked.namespace) == ("Pod", "CREATE", "shop")
    assert (asked.name, asked.is_dry_run, asked.sub_resource) == ("web-0", True, "")
    assert asked.document["kind"] == "Pod"
    assert asked.former == {}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "not an object"),
        ({}, "expected an AdmissionReview"),
        ({**review(pod()), "apiVersion": "admission.k8s.io/v1beta1"}, "admission.k8s.io/v1"),
        (review(pod(), uid=""), "has no uid"),
        (review(pod(), uid=5), "'uid' is no text"),
        (review(pod(), uid="x" * 101), "has no uid"),
        (review(pod(), object=[]), "'object' is no object"),
        (review(pod(), kind="Pod") | {"request": 5}, "'request' is no object"),
        (review(pod(), namespace=["shop"]), "'namespace' is no text"),
    ],
    ids=["list", "empty", "version", "no-uid", "number", "long", "list-object", "request", "text"],
)
def test_what_is_no_review_is_refused(document: Any, said: str) -> None:
    """Whoever sends it is no API server."""
    with pytest.raises(Malformed, match=said):
        parsed(document)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b'{"a": "\xff"}', b'{"a": NaN}'],
    ids=["empty", "half", "deep", "no-utf8", "nan"],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Without going down with it."""
    with pytest.raises(Malformed):
        parse_review(body)


def test_null_is_as_good_as_nothing() -> None:
    """API servers write both."""
    assert members({"a": None}, "a") == members({}, "a") == {}
    assert text_of({"a": None}, "a") == text_of({}, "a") == ""


def test_a_patch_is_sent_as_it_is_to_be() -> None:
    """And what is let through as it is has none."""
    step = {"op": "add", "path": "/metadata/labels/x", "value": "é"}
    admitted = Admitted(outcome=Outcome.INJECTED, patch=[step], notes={"names": "a.test"})
    body = format_review("u", admitted)
    assert patched(pod(), body)["metadata"]["labels"] == {"app": "web", "x": "é"}
    response = json.loads(body)["response"]
    assert response["uid"] == "u"
    assert response["auditAnnotations"] == {"names": "a.test"}
    assert patched(pod(), format_review("u", Admitted(outcome=Outcome.UNTOUCHED))) == pod()


def test_a_refusal_has_its_sentence_and_no_patch() -> None:
    """Short enough, and without what would steer a terminal."""
    step = {"op": "add", "path": "/metadata/labels/x", "value": "y"}
    message = "no\x1b[31m " + "x" * 5_000
    admitted = Admitted(outcome=Outcome.REFUSED, message=message, patch=[step], warnings=["w\n"])
    response = json.loads(format_review("u", admitted))["response"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 403
    assert response["status"]["message"].startswith("no\\u001b[31m")
    assert len(response["status"]["message"]) <= 1_500
    assert "patch" not in response
    assert response["warnings"] == ["w\\u000a"]


def test_a_patch_is_base64() -> None:
    """As the API wants it."""
    admitted = Admitted(outcome=Outcome.INJECTED, patch=[{"op": "add", "path": "/a", "value": 1}])
    response = json.loads(format_review("u", admitted))["response"]
    assert json.loads(base64.b64decode(response["patch"], validate=True)) == list(admitted.patch)
