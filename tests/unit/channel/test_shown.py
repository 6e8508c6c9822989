"""What a request shows of who sends it."""

from typing import Any, cast

import pytest
from aiohttp import web

from broker.channel.shown import BEHIND_PROXY, has_claim, shown_chain

ENROL = "/agent/v1/enrol"
MESSAGES = "/agent/v1/messages"


class FakeTls:
    """A TLS connection at which a certificate was shown, with its issuer."""

    def __init__(self, *chain: bytes) -> None:
        self._chain = chain

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        """Return the leaf."""
        assert binary_form
        return self._chain[0] if self._chain else None

    def get_unverified_chain(self) -> list[bytes]:
        """Return all that came."""
        return list(self._chain)


class FakeRequest(dict[Any, Any]):
    """What is looked at of a request."""

    def __init__(self, path: str = MESSAGES, *chain: bytes, is_signed: bool = False) -> None:
        super().__init__()
        self.path = path
        self.headers = {"Signature-Input": "x"} if is_signed else {}
        self.transport = self
        self._tls = FakeTls(*chain)

    def get_extra_info(self, _name: str) -> FakeTls:
        """Return the TLS connection."""
        return self._tls


def request(*given: Any, **more: Any) -> web.Request:
    """Return a request."""
    return cast(web.Request, FakeRequest(*given, **more))


def test_chain_is_what_tls_was_shown() -> None:
    """Leaf first; nothing where nothing was shown, or where a proxy has shown its own."""
    assert shown_chain(request(MESSAGES, b"leaf", b"issuer")) == (b"leaf", b"issuer")
    assert shown_chain(request()) == ()
    behind = request(MESSAGES, b"the proxy")
    behind[BEHIND_PROXY] = True
    assert shown_chain(behind) == ()


@pytest.mark.parametrize(
    ("path", "chain", "is_signed", "is_shown"),
    [
        pytest.param(MESSAGES, (), False, False, id="nothing"),
        pytest.param(MESSAGES, (b"leaf",), False, True, id="certificate"),
        pytest.param(MESSAGES, (), True, True, id="signature"),
        pytest.param(ENROL, (b"leaf",), False, False, id="certificate-to-enrol-by"),
        pytest.param(ENROL, (), True, True, id="former-identity"),
    ],
)
def test_who_claims_to_be_a_node(
    path: str, chain: tuple[bytes, ...], is_signed: bool, is_shown: bool
) -> None:
    """A certificate that somebody wants to enrol by is no identity of ours."""
    assert has_claim(request(path, *chain, is_signed=is_signed)) is is_shown
