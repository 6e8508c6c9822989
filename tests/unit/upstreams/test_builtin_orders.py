"""Orders written into their URL: what goes in comes out, and nothing else is read."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import UpstreamRequest
from broker.protocol.encoding import encode_base64url
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import OrderStatus
from broker.upstreams.builtin_orders import (
    MAX_IDENTIFIERS,
    order_url,
    parse_order_url,
    ready_order,
    valid_order,
)
from tests.fakes.builtin_ca import request
from tests.fakes.clock import START

identifiers = st.one_of(
    st.from_regex(r"[a-z0-9]{1,20}\.example", fullmatch=True).map(
        lambda name: Identifier(IdentifierType.DNS, name)
    ),
    st.ip_addresses().map(lambda address: Identifier(IdentifierType.IP, str(address))),
)
requests = st.builds(
    UpstreamRequest,
    reference=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    identifiers=st.lists(identifiers, min_size=1, max_size=5).map(tuple),
    profile=st.none() | st.text(max_size=20).filter(lambda text: text.isprintable()),
    not_after=st.none()
    | st.integers(0, 10**9).map(lambda seconds: START + timedelta(seconds=seconds)),
)


@given(requests)
def test_what_was_asked_for_is_read_again(asked: UpstreamRequest) -> None:
    """After a restart nothing of an order is lost; and the same request has one URL."""
    url = order_url("local", asked)
    assert parse_order_url("local", url) == asked
    assert order_url("local", asked) == url


def test_fractions_of_a_second_are_cut() -> None:
    """An end is never moved later by writing it down."""
    asked = request(not_after=START + timedelta(milliseconds=999))
    assert parse_order_url("local", order_url("local", asked)).not_after == START


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param("https://ca.example/order/1", id="acme"),
        pytest.param("builtin:local", id="cut"),
        pytest.param("builtin:local:work1:", id="no-payload"),
        pytest.param("builtin:local:work1:e30", id="empty-object"),
        pytest.param("builtin:local:work1:====", id="no-base64url"),
        pytest.param(
            "builtin:local:wo rk:" + order_url("local", request()).split(":")[3], id="ref"
        ),
        pytest.param(order_url("other", request()), id="another-ca"),
        pytest.param(order_url("local", request()) + "A", id="longer"),
        pytest.param(
            "builtin:local:work1:"
            + encode_base64url(b'{"identifiers":[["dns","A"]],"not_after":null,"profile":null}'),
            id="identifier-not-canonical",
        ),
        pytest.param(
            "builtin:local:work1:"
            + encode_base64url(b'{"identifiers":[["dns"]],"not_after":null,"profile":null}'),
            id="identifier-without-value",
        ),
        pytest.param(
            "builtin:local:work1:"
            + encode_base64url(b'{"identifiers":[],"not_after":7,"profile":null}'),
            id="end-no-text",
        ),
    ],
)
def test_url_of_no_order_is_refused(url: str) -> None:
    """As any CA refuses to show an order that it does not have."""
    with pytest.raises(Refused, match="has no such order"):
        parse_order_url("local", url)


def test_number_of_identifiers_is_limited() -> None:
    """As many as public CAs take, and at least one."""
    names = [f"h{number}.corp.example" for number in range(MAX_IDENTIFIERS + 1)]
    assert order_url("local", request(*names[:-1]))
    with pytest.raises(Refused, match="has 101 identifiers, expected 1 to 100"):
        order_url("local", request(*names))
    nameless = UpstreamRequest(reference="r", identifiers=(), profile=None, not_after=None)
    with pytest.raises(Refused, match="has 0 identifiers"):
        order_url("local", nameless)


def test_largest_order_fits_a_row() -> None:
    """100 names of full length stay within 40 kB."""
    label = ".".join(["a" * 60] * 4)[:250]
    url = order_url("local", request(*(f"{n:02}{label}" for n in range(100))))
    assert len(url) < 40_000


@pytest.mark.parametrize("reference", ["", "a:b", "a/b", "ä", "a" * 129])
def test_reference_of_another_shape_is_our_own_fault(reference: str) -> None:
    """References are work ids, which we make."""
    with pytest.raises(Broken, match="is not base64url"):
        order_url("local", request(reference=reference))


def test_order_shows_what_was_asked_for() -> None:
    """Ready without a certificate, valid with one at its own URL."""
    asked = request("a.corp.example", profile="server", not_after=START)
    ready, valid = ready_order("url", asked), valid_order("url", asked)
    assert (ready.status, ready.certificate_url) == (OrderStatus.READY, None)
    assert (valid.status, valid.certificate_url) == (OrderStatus.VALID, "url")
    for order in (ready, valid):
        assert (order.identifiers, order.profile) == (asked.identifiers, "server")
        assert order.not_after == START
