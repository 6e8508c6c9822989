"""A JWS taken apart: three members, known headers, base64url without padding."""

from typing import Any

import pytest

from broker.protocol.flattened import open_flattened, read_visible
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol.builders import b64url

HEADERS = frozenset({"alg", "url"})


def outer(**changes: Any) -> dict[str, Any]:
    """Return a flattened JWS; None takes a member out."""
    made = {
        "protected": b64url(b'{"alg":"ES256","url":"u"}'),
        "payload": b64url(b"{}"),
        "signature": b64url(b"signed"),
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def test_parts_come_out_as_they_went_in() -> None:
    """The signing input is the text that was sent, not one that was made again."""
    parts = open_flattened(outer(), "JWS", HEADERS)
    assert parts.header == {"alg": "ES256", "url": "u"}
    assert (parts.payload, parts.signature) == (b"{}", b"signed")
    assert parts.signing_input == f"{outer()['protected']}.{outer()['payload']}".encode()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"header": {}}, id="unprotected header"),
        pytest.param({"signatures": []}, id="several signatures"),
        pytest.param({"payload": None}, id="detached payload"),
        pytest.param({"signature": ""}, id="no signature"),
        pytest.param({"signature": "e30="}, id="padding"),
        pytest.param({"protected": 1}, id="a number"),
        pytest.param({"protected": b64url(b'{"alg":"ES256","crit":[]}')}, id="unknown header"),
        pytest.param({"protected": b64url(b'{"alg":"a","alg":"b"}')}, id="a header twice"),
    ],
)
def test_anything_else_is_malformed(changes: dict[str, Any]) -> None:
    """What is not understood is not opened; see above for the good twin."""
    with pytest.raises(Problem) as refused:
        open_flattened(outer(**changes), "JWS", HEADERS)
    assert refused.value.type is ProblemType.MALFORMED


@pytest.mark.parametrize("value", ["", "a b", "ä", "x" * 9, None, 1], ids=repr)
def test_header_that_is_not_visible_ascii_is_malformed(value: object) -> None:
    """A short visible one passes."""
    assert read_visible({"url": "visible"}, "url", 8) == "visible"
    with pytest.raises(Problem):
        read_visible({"url": value}, "url", 8)
