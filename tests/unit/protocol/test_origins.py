"""Where a CA may send us, and where it may not."""

import pytest

from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins

ORIGINS = TrustedOrigins("https://CA.example/dir", ["https://files.ca.example:8443"])


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://ca.example/acme/order/1", id="same-origin"),
        pytest.param("https://ca.example:443/x", id="default-port-written-out"),
        pytest.param("https://Ca.Example./x", id="case-and-root-dot"),
        pytest.param("https://files.ca.example:8443/cert", id="allowed-origin"),
        pytest.param("https://ca.example/a?b=c", id="query"),
    ],
)
def test_a_url_of_a_trusted_origin_passes_unchanged(url: str) -> None:
    """What is signed and asked for is the text that the CA gave."""
    assert ORIGINS.verify_url(url, "order.finalize") == url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://ca.example/x", id="http"),
        pytest.param("https://ca.example:8443/x", id="other-port"),
        pytest.param("https://evil.example/x", id="other-host"),
        pytest.param("https://ca.example.evil.example/x", id="longer-host"),
        pytest.param("https://127.0.0.1/x", id="loopback"),
        pytest.param("https://[::1]/x", id="loopback-v6"),
        pytest.param("https://169.254.169.254/latest/meta-data", id="metadata"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("https://ca.example@evil.example/x", id="user-information"),
        pytest.param("https://evil.example\\@ca.example/x", id="backslash"),
        pytest.param("https://ca.example/x#y", id="fragment"),
        pytest.param("https://ca.example/x y", id="space"),
        pytest.param("https://ca.example/x\r\nHost: evil", id="line-break"),
        pytest.param("https://ca.example:99999/x", id="port-that-is-none"),
        pytest.param("https://[ca.example/x", id="open-bracket"),
        pytest.param("https:///x", id="no-host"),
        pytest.param("/acme/order/1", id="relative"),
        pytest.param("", id="empty"),
        pytest.param("https://ca.example/" + "a" * 2048, id="too-long"),
    ],
)
def test_any_other_url_is_refused_by_name(url: str) -> None:
    """The refusal says which URL it was, in printable characters."""
    with pytest.raises(ProtocolError, match=r"^order\.finalize: ") as caught:
        ORIGINS.verify_url(url, "order.finalize")
    assert str(caught.value).isprintable()


def test_a_directory_without_tls_is_refused() -> None:
    """A configuration that names an http directory never sends anything."""
    with pytest.raises(ProtocolError, match="no https URL"):
        TrustedOrigins("http://ca.example/dir")
