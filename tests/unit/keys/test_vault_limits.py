"""Limits of one blocking request, as far as they need no connection."""

import io

import pytest
import requests
import urllib3

from broker.keys.vault_limits import LimitedAdapter, TimeLimit, read_bounded

LIMIT = 200_000


def answered(body: bytes, **headers: str) -> requests.Response:
    """Return an answer whose body was not read yet."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    made = requests.Response()
    made.raw = urllib3.HTTPResponse(io.BytesIO(body), headers=named, preload_content=False)
    return made


@pytest.mark.parametrize("length", [0, 1, LIMIT])
def test_body_is_read_to_its_end(length: int) -> None:
    """In however many parts it comes."""
    assert read_bounded(answered(b"x" * length), LIMIT) == b"x" * length


def test_body_past_the_limit_is_none() -> None:
    """And no more of it is read than shows that."""
    answer = answered(b"x" * (3 * LIMIT))
    assert read_bounded(answer, LIMIT) is None
    assert len(answer.raw.read()) == 2 * LIMIT - 1


def test_nothing_is_unpacked() -> None:
    """A thousandth of the limit may be more than memory holds."""
    packed = b"\x1f\x8b no gzip at all"
    assert read_bounded(answered(packed, content_encoding="gzip"), LIMIT) == packed


def test_limit_that_was_kept_to_is_not_over() -> None:
    """Its timer is gone with it."""
    with TimeLimit(60) as limit:
        pass
    assert not limit.is_over


def test_connections_can_be_cut_whatever_they_lead_to() -> None:
    """Those of HTTPS alone are known: Vault is reached in no other way."""
    adapter = LimitedAdapter()
    assert set(adapter.poolmanager.pool_classes_by_scheme) == {"https"}
