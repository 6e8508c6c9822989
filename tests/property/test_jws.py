"""The envelope: what is sealed opens, and nothing that differs by one byte does."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol.jws import (
    ALGORITHMS,
    jwk_from_public_key,
    parse_binding,
    parse_request,
    seal,
    seal_binding,
    signing_input,
    verify_binding,
    verify_request,
)
from broker.protocol.problems import Problem
from tests.unit.protocol.builders import KID, NONCE, URL, private_key, sign

MAC_KEY = b"0123456789abcdef0123456789abcdef"
algorithms = pytest.mark.parametrize("alg", ALGORITHMS)


def sealed(alg: str, payload: bytes) -> bytes:
    """Return a request under the test key of an algorithm."""
    protected = {"alg": alg, "nonce": NONCE, "url": URL, "kid": KID}
    message = signing_input(protected, payload)
    return seal(message, sign(private_key(alg), message, alg))


def open_request(alg: str, body: bytes) -> bytes:
    """Return the payload of a request, verified."""
    key = jwk_from_public_key(private_key(alg).public_key())
    return verify_request(parse_request(body), key=key, expected_url=URL).payload


@algorithms
@given(payload=st.binary(max_size=200))
@settings(max_examples=20)
def test_what_is_sealed_opens(alg: str, payload: bytes) -> None:
    """Any payload arrives as it was sealed."""
    assert open_request(alg, sealed(alg, payload)) == payload


@algorithms
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_is_refused(alg: str, data: st.DataObject) -> None:
    """One byte of the body replaced by any other, anywhere: a problem, no other exception."""
    body = bytearray(sealed(alg, b'{"a":1}'))
    index = data.draw(st.integers(0, len(body) - 1))
    body[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Problem):
        open_request(alg, bytes(body))


def test_every_flipped_bit_is_refused() -> None:
    """Each bit of one body in turn, so that no position is left to chance."""
    good = sealed("ES256", b"{}")
    assert open_request("ES256", good) == b"{}"
    for index in range(len(good) * 8):
        body = bytearray(good)
        body[index // 8] ^= 1 << index % 8
        with pytest.raises(Problem):
            open_request("ES256", bytes(body))


@given(body=st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_problem(body: bytes) -> None:
    """Noise gives a problem and nothing else."""
    with pytest.raises(Problem):
        parse_request(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    name=st.sampled_from(["alg", "nonce", "url", "kid", "jwk", "crit", "b64"]), value=json_values
)
def test_any_header_value_is_refused_or_stands_for_itself(name: str, value: Any) -> None:
    """A header of any type and value: a problem, or a request that says exactly this."""
    protected = {"alg": "ES256", "nonce": NONCE, "url": URL, "kid": KID, name: value}
    message = signing_input(protected, b"")
    try:
        parsed = parse_request(seal(message, sign(private_key(), message)))
    except Problem:
        return
    assert getattr(parsed, name) == value


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_changed_byte_of_a_binding_is_refused(data: st.DataObject) -> None:
    """One character of any member replaced by any other."""
    key = jwk_from_public_key(private_key().public_key())
    inner = seal_binding("key-1", MAC_KEY, "HS256", URL, key)
    member = data.draw(st.sampled_from(sorted(inner)))
    text = inner[member]
    index = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[index]))
    changed = {**inner, member: text[:index] + other + text[index + 1 :]}

    def open_binding(binding: object) -> str:
        parsed = parse_binding(binding, expected_url=URL, account_key=key)
        return verify_binding(parsed, MAC_KEY).key_id

    with pytest.raises(Problem):
        open_binding(changed)
    assert open_binding(json.loads(json.dumps(inner))) == "key-1"
