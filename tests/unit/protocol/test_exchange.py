"""The conversation of one request: its steps, its end, and what a CA can do to it."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.protocol.exchange import (
    MAX_ANSWER_BYTES,
    MAX_NONCE_TRIES,
    Answer,
    Call,
    Exchange,
    HttpRequest,
    HttpResponse,
    SigningInput,
    Unavailable,
)
from broker.protocol.jws import jwk_from_public_key
from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.reading import directory_request, parse_directory

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORIGINS = TrustedOrigins("https://ca.example/dir")
NONCE_URL = "https://ca.example/nonce"
URL = "https://ca.example/order/1"
KID = "https://ca.example/account/1"
PROBLEM = "application/problem+json"


def begin(nonce: str | None = "bm9uY2U", **changes: Any) -> Exchange:
    """Begin a POST of ``{"a":1}`` by account 1."""
    members: dict[str, Any] = {"url": URL, "payload": {"a": 1}, "alg": "ES256", "kid": KID}
    return Exchange(Call(**members | changes), nonce_url=NONCE_URL, origins=ORIGINS, nonce=nonce)


def sent(exchange: Exchange) -> HttpRequest:
    """Sign, and return the request that is to be sent."""
    step = exchange.next_request()
    assert isinstance(step, SigningInput)
    exchange.receive_signature(b"signature")
    request = exchange.next_request()
    assert isinstance(request, HttpRequest)
    return request


def response(
    status: int = 200,
    document: object = None,
    *,
    body: bytes | None = None,
    content_type: str | None = "application/json",
    nonce: str | None = "bmV4dA",
    **headers: str,
) -> HttpResponse:
    """Return an answer, with a next nonce unless told otherwise."""
    found = {"Content-Type": content_type, "Replay-Nonce": nonce, **headers}
    pairs = tuple((k.replace("_", "-"), v) for k, v in found.items() if v is not None)
    content = json.dumps({} if document is None else document).encode() if body is None else body
    return HttpResponse(status, pairs, content)


def refusal(status: int, token: str, detail: str = "no", **more: Any) -> HttpResponse:
    """Return an answer with a problem document."""
    document = {"type": f"urn:ietf:params:acme:error:{token}", "detail": detail}
    return response(status, document, content_type=PROBLEM, **more)


def unsealed(request: HttpRequest) -> tuple[Mapping[str, Any], bytes]:
    """Return the protected header and the payload of a request body."""
    jws = json.loads(request.body or b"")
    header, payload = (
        base64.urlsafe_b64decode(jws[name] + "=" * (-len(jws[name]) % 4))
        for name in ("protected", "payload")
    )
    return json.loads(header), payload


def ended(exchange: Exchange, answer: HttpResponse) -> Answer:
    """Send, take *answer*, and return what the conversation ended with."""
    sent(exchange)
    result = exchange.receive_response(answer, NOW)
    assert result is not None
    return result


def test_with_a_nonce_at_hand_it_signs_sends_and_ends() -> None:
    """A spare nonce saves the request for one."""
    exchange = begin()
    request = sent(exchange)
    assert (request.method, request.url) == ("POST", URL)
    assert request.headers["Content-Type"] == "application/jose+json"
    header, payload = unsealed(request)
    assert header == {"alg": "ES256", "nonce": "bm9uY2U", "url": URL, "kid": KID}
    assert payload == b'{"a":1}'
    answer = exchange.receive_response(response(201, {"b": 2}), NOW)
    assert answer is not None
    assert (answer.status, answer.json()) == (201, {"b": 2})
    assert exchange.spare_nonce == "bmV4dA"


def test_without_a_nonce_it_fetches_one_first() -> None:
    """The nonce of newNonce's answer is the one that is signed."""
    exchange = begin(nonce=None)
    step = exchange.next_request()
    assert isinstance(step, HttpRequest)
    assert (step.method, step.url, step.body) == ("HEAD", NONCE_URL, None)
    assert exchange.receive_response(response(nonce="ZnJlc2g"), NOW) is None
    assert unsealed(sent(exchange))[0]["nonce"] == "ZnJlc2g"


def test_a_post_as_get_has_an_empty_payload() -> None:
    """RFC 8555 §6.3: not an empty object, an empty payload."""
    assert unsealed(sent(begin(payload=None)))[1] == b""


def test_a_request_with_an_embedded_key_has_no_kid() -> None:
    """A key that is no account yet signs for itself."""
    jwk = jwk_from_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    header, _ = unsealed(sent(begin(kid=None, jwk=jwk)))
    assert header["jwk"] == jwk.to_json()
    assert "kid" not in header


def test_a_call_by_nobody_is_our_bug() -> None:
    """A call without kid and jwk cannot be made."""
    with pytest.raises(ValueError, match="kid or a jwk"):
        begin(kid=None)


def test_a_signature_that_nobody_asked_for_is_our_bug() -> None:
    """Steps out of order are not swallowed."""
    with pytest.raises(RuntimeError):
        begin(nonce=None).receive_signature(b"x")


def test_a_refused_nonce_is_replaced_by_the_one_in_the_refusal() -> None:
    """RFC 8555 §6.5: the error itself brings the next nonce."""
    exchange = begin()
    sent(exchange)
    assert exchange.receive_response(refusal(400, "badNonce", nonce="c2Vjb25k"), NOW) is None
    assert unsealed(sent(exchange))[0]["nonce"] == "c2Vjb25k"
    assert exchange.receive_response(response(), NOW) is not None


def test_a_refused_nonce_without_another_is_fetched_anew() -> None:
    """A refusal that brings no nonce costs one more request."""
    exchange = begin()
    sent(exchange)
    assert exchange.receive_response(refusal(400, "badNonce", nonce=None), NOW) is None
    step = exchange.next_request()
    assert isinstance(step, HttpRequest)
    assert step.method == "HEAD"


def test_nonces_that_are_refused_for_ever_end_the_conversation() -> None:
    """The bound is on requests sent, and the end says to try later."""
    exchange = begin()
    for _ in range(MAX_NONCE_TRIES - 1):
        sent(exchange)
        assert exchange.receive_response(refusal(400, "badNonce"), NOW) is None
    sent(exchange)
    with pytest.raises(Unavailable, match=f"refused {MAX_NONCE_TRIES} nonces"):
        exchange.receive_response(refusal(400, "badNonce"), NOW)


def test_a_success_that_speaks_of_nonces_is_a_success() -> None:
    """Only an error can refuse a nonce: a 200 must not be sent again."""
    document = {"type": "urn:ietf:params:acme:error:badNonce"}
    assert ended(begin(), response(200, document, content_type=PROBLEM)).status == 200


@pytest.mark.parametrize(
    "nonce",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param("not base64url!", id="other-alphabet"),
        pytest.param("a" * 513, id="too-long"),
    ],
)
def test_an_invalid_nonce_is_ignored(nonce: str | None) -> None:
    """RFC 8555 §6.5.1: a client ignores what is no nonce, and the answer still counts."""
    exchange = begin()
    assert ended(exchange, response(nonce=nonce)).status == 200
    assert exchange.spare_nonce is None


def test_a_nonce_service_without_nonces_breaks_the_protocol() -> None:
    """The newNonce resource exists to give one."""
    exchange = begin(nonce=None)
    exchange.next_request()
    with pytest.raises(ProtocolError, match="gave no nonce"):
        exchange.receive_response(response(nonce=None), NOW)


def test_a_nonce_service_that_is_down_means_later() -> None:
    """An outage of newNonce is an outage."""
    exchange = begin(nonce=None)
    exchange.next_request()
    with pytest.raises(Unavailable) as caught:
        exchange.receive_response(response(503, Retry_After="30"), NOW)
    assert caught.value.retry_at == NOW + timedelta(seconds=30)


def test_a_problem_document_is_a_refusal() -> None:
    """A refusal carries the CA's type and words, and its wish for a wait."""
    exchange = begin()
    sent(exchange)
    with pytest.raises(Problem) as caught:
        exchange.receive_response(
            refusal(403, "rejectedIdentifier", "not that one", Retry_After="60"), NOW
        )
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER
    assert caught.value.detail == "not that one"
    assert caught.value.status == 403
    assert caught.value.retry_after == timedelta(seconds=60)
    assert exchange.spare_nonce == "bmV4dA"


@pytest.mark.parametrize("status", [404, 410])
def test_a_bare_404_with_a_nonce_refuses_a_read(status: int) -> None:
    """A proxy's page has no nonce; Pebble's 404 has nothing else.  Only reads are meant."""
    bare = response(status, body=b"", content_type=None)
    reading, writing = begin(payload=None), begin()
    sent(reading)
    with pytest.raises(Problem, match="is not there") as caught:
        reading.receive_response(bare, NOW)
    assert caught.value.status == status
    sent(writing)
    with pytest.raises(ProtocolError, match="without a problem document"):
        writing.receive_response(bare, NOW)


LATER = [
    pytest.param(refusal(429, "rateLimited", Retry_After="7"), 429, 7, id="429"),
    pytest.param(refusal(403, "rateLimited", Retry_After="7"), 429, 7, id="rate-limited-as-403"),
    pytest.param(response(429, body=b"slow down", content_type="text/plain"), 429, None, id="text"),
    pytest.param(refusal(503, "serverInternal", Retry_After="7"), 503, 7, id="503"),
    pytest.param(refusal(500, "serverInternal"), 500, None, id="500"),
    pytest.param(refusal(500, "badCSR"), 500, None, id="500-with-a-client-type"),
    pytest.param(response(502, body=b"<html>", content_type="text/html"), 502, None, id="html"),
    pytest.param(response(504, body=b"", content_type=None), 504, None, id="empty"),
    pytest.param(response(408, body=b"", content_type=None), 408, None, id="408"),
]


@pytest.mark.parametrize(("answer", "status", "seconds"), LATER)
def test_an_outage_or_a_limit_means_later(
    answer: HttpResponse, status: int, seconds: int | None
) -> None:
    """5xx and rate limits are no refusal, whatever the body says."""
    exchange = begin()
    sent(exchange)
    with pytest.raises(Unavailable) as caught:
        exchange.receive_response(answer, NOW)
    expected = NOW + timedelta(seconds=seconds) if seconds is not None else None
    assert (caught.value.status, caught.value.retry_at) == (status, expected)


NONSENSE = [
    pytest.param(response(302, Location="https://ca.example/x"), "redirect", id="redirect"),
    pytest.param(
        response(404, body=b"<html>", content_type="text/html", nonce=None),
        "without a problem",
        id="html-404",
    ),
    pytest.param(
        response(403, body=b"{", content_type=PROBLEM), "without a problem", id="cut-problem"
    ),
    pytest.param(
        response(400, {"type": "urn:ietf:params:acme:error:badCSR"}),
        "without a problem",
        id="problem-labelled-as-json",
    ),
    pytest.param(response(999), "without a problem", id="status-that-is-none"),
    pytest.param(
        response(404, body=b"", content_type=None, nonce=None), "without a problem", id="bare-404"
    ),
    pytest.param(response(501), "501 without a problem", id="not-implemented"),
    pytest.param(refusal(501, "serverInternal"), "answered 501", id="never-implemented"),
    pytest.param(
        HttpResponse(200, (), b"x" * MAX_ANSWER_BYTES, is_cut=True), "more than", id="huge"
    ),
    pytest.param(
        response(201, Location="https://evil.example/order/1"), "Location", id="foreign-location"
    ),
    pytest.param(response(201, Location="http://ca.example/1"), "Location", id="http-location"),
    pytest.param(response(201, Location="//evil.example/1"), "Location", id="foreign-by-slashes"),
    pytest.param(response(201, Location="https://[/1"), "Location", id="broken-location"),
    pytest.param(
        response(200, Link='<https://evil.example/2>;rel="next"'), "Link", id="foreign-next"
    ),
]


@pytest.mark.parametrize(("answer", "words"), NONSENSE)
def test_nonsense_breaks_the_protocol(answer: HttpResponse, words: str) -> None:
    """Neither a refusal nor a success may be guessed from it."""
    exchange = begin()
    sent(exchange)
    with pytest.raises(ProtocolError, match=words):
        exchange.receive_response(answer, NOW)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(response(body=b"<html>", content_type="text/html"), "text/html", id="html"),
        pytest.param(response(content_type=None), "nothing at all", id="unlabelled"),
        pytest.param(response(body=b""), "does not parse", id="empty"),
        pytest.param(response(body=b"[]"), "not an object", id="list"),
        pytest.param(response(body=b'{"a":1,"a":2}'), "twice", id="member-twice"),
    ],
)
def test_a_success_that_is_no_json_object_breaks_the_protocol(
    answer: HttpResponse, words: str
) -> None:
    """A 200 with a load balancer's page is no order."""
    with pytest.raises(ProtocolError, match=words):
        ended(begin(), answer).json()


def test_locations_and_links_are_made_absolute() -> None:
    """HTTP allows relative ones; the first link of a relation counts."""
    answer = ended(
        begin(),
        response(
            201,
            Location="/order/9",
            Link='<https://ca.example/dir>;rel="index", </orders?c=2>;rel="next"',
        ),
    )
    assert answer.location == "https://ca.example/order/9"
    assert answer.next_url == "https://ca.example/orders?c=2"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(response(201), id="missing"),
        pytest.param(response(201, Location=""), id="empty"),
    ],
)
def test_empty_location_is_none(answer: HttpResponse) -> None:
    """It would lead back to the request, and newOrder's own URL is no order's."""
    assert ended(begin(), answer).location is None


def test_retry_after_of_a_success_is_told() -> None:
    """An order that is processing says when to ask again."""
    assert ended(begin(), response(Retry_After="3")).retry_at == NOW + timedelta(seconds=3)


@pytest.mark.parametrize("member", ["url", "nonce"])
def test_nothing_is_sent_to_a_foreign_origin(member: str) -> None:
    """A stored or handed-out URL elsewhere ends the conversation before it begins."""
    foreign = "https://evil.example/x"
    call = Call(url=foreign if member == "url" else URL, payload=None, alg="ES256", kid=KID)
    nonce_url = foreign if member == "nonce" else NONCE_URL
    with pytest.raises(ProtocolError, match="another origin"):
        Exchange(call, nonce_url=nonce_url, origins=ORIGINS)


DIRECTORY = {
    "newNonce": NONCE_URL,
    "newAccount": "https://ca.example/account",
    "newOrder": "https://ca.example/order",
    "revokeCert": "https://ca.example/revoke",
    "keyChange": "https://ca.example/key",
}


def read_directory(answer: HttpResponse) -> Any:
    """Read a directory out of *answer*."""
    request = directory_request("https://ca.example/dir")
    assert (request.method, request.body) == ("GET", None)
    return parse_directory(request.url, answer, ORIGINS, NOW)


def test_a_directory_is_read() -> None:
    """Members of the CA's own are ignored."""
    directory = read_directory(response(200, DIRECTORY | {"x-random": "https://evil.example"}))
    assert directory.new_order == "https://ca.example/order"


@pytest.mark.parametrize("member", sorted(DIRECTORY))
def test_a_directory_that_leads_elsewhere_is_refused(member: str) -> None:
    """Every URL that we would use is looked at, not only the first that we need."""
    with pytest.raises(ProtocolError, match=f"directory.{member}"):
        read_directory(response(200, DIRECTORY | {member: "https://evil.example/x"}))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(response(503), Unavailable, id="down"),
        pytest.param(refusal(403, "unauthorized"), Problem, id="refused"),
        pytest.param(response(200, {"newNonce": NONCE_URL}), ProtocolError, id="incomplete"),
        pytest.param(response(302, Location="https://ca.example/2"), ProtocolError, id="redirect"),
        pytest.param(HttpResponse(200, (), b"", is_cut=True), ProtocolError, id="huge"),
        pytest.param(response(content_type="text/html"), ProtocolError, id="html"),
    ],
)
def test_an_answer_that_is_no_directory_is_told_apart(
    answer: HttpResponse, kind: type[Exception]
) -> None:
    """The three ends are the same as for signed requests."""
    with pytest.raises(kind):
        read_directory(answer)
