"""What all handlers share: how a read is told from a write, and the shape of an answer."""

import json

import pytest

from broker.protocol.jws import VerifiedRequest, jwk_from_public_key
from broker.web.handlers import is_read, json_answer
from tests.unit.protocol.builders import KID, NONCE, URL, private_key


@pytest.mark.parametrize(
    ("payload", "is_reading"),
    [(b"", True), (b"{}", True), (b" {} ", True), (b'{"a":1}', False), (b"[]", False)],
)
def test_read_has_no_payload_or_an_empty_one(payload: bytes, is_reading: bool) -> None:
    """The empty object is what old clients send (RFC 8555 §6.3 has the empty string)."""
    key = jwk_from_public_key(private_key().public_key())
    assert is_read(VerifiedRequest(payload, key, KID, URL, NONCE)) is is_reading


def test_answer_is_json_in_utf_8() -> None:
    """With its status."""
    answer = json_answer({"a": "ä"}, status=201)
    assert (answer.status, answer.content_type) == (201, "application/json")
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"a": "ä"}
