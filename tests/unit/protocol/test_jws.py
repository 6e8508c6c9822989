"""The JWS front door: what opens, and the long list of what does not."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.json_util import encode_b64jose
from josepy.jwk import JWKEC
from josepy.jws import JWS

from broker.protocol.jws import (
    ALGORITHMS,
    Jwk,
    ParsedRequest,
    VerifiedRequest,
    binding_refused,
    jwk_from_public_key,
    parse_binding,
    parse_jwk,
    parse_request,
    seal,
    seal_binding,
    signing_input,
    verify_binding,
    verify_request,
)
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol.builders import (
    KID,
    NONCE,
    URL,
    VECTORS,
    b64url,
    jwk_json,
    private_key,
    request_body,
    request_parts,
    sign,
    un64url,
)

JOSE = json.loads((VECTORS / "jose.json").read_text())
MALFORMED = ProblemType.MALFORMED
UNAUTHORIZED = ProblemType.UNAUTHORIZED
BAD_ALG = ProblemType.BAD_SIGNATURE_ALGORITHM
BAD_KEY = ProblemType.BAD_PUBLIC_KEY
BAD_NONCE = ProblemType.BAD_NONCE

MAC_KEY = b"0123456789abcdef0123456789abcdef"


def jwk_of(alg: str = "ES256", label: object = 0) -> Jwk:
    """Return the public JWK of a test key."""
    return jwk_from_public_key(private_key(alg, label).public_key())


def open_request(body: bytes, *, key: Jwk | None = None, url: str = URL) -> VerifiedRequest:
    """Parse and verify a request the way the front door does."""
    parsed = parse_request(body)
    return verify_request(parsed, key=parsed.jwk or key or jwk_of(), expected_url=url)


def dumped(parts: dict[str, Any], **changes: Any) -> bytes:
    """Return the body of parts with some members changed; None takes one away."""
    changed = {**parts, **changes}
    return json.dumps({k: v for k, v in changed.items() if v is not None}).encode()


def with_header(**header: Any) -> Callable[[], bytes]:
    """Return a maker of a request, correctly signed, with these protected headers."""
    return lambda: request_body(header=header)


def without(*names: str) -> Callable[[], bytes]:
    """Return a maker of a request, correctly signed, without these protected headers."""
    return lambda: request_body(drop=names)


def with_member(**changes: Any) -> Callable[[], bytes]:
    """Return a maker of a good request whose outer members were changed afterwards."""
    return lambda: dumped(request_parts(), **changes)


def embedding(jwk: object, **header: Any) -> Callable[[], bytes]:
    """Return a maker of a request that embeds a key."""
    return lambda: request_body(header={"jwk": jwk, **header}, drop=["kid"])


def with_header_bytes(octets: bytes) -> Callable[[], bytes]:
    """Return a maker of a request, correctly signed over a raw protected header."""
    return lambda: request_body(header_bytes=octets)


def header_text(extra: str = "") -> str:
    """Return the JSON text of a good protected header, with text put before its end."""
    return f'{{"alg":"ES256","nonce":"{NONCE}","url":"{URL}","kid":"{KID}"{extra}}}'


def hs256_with_public_key() -> bytes:
    """Return a request whose MAC key is the server's idea of the public key."""
    public = jwk_of("ES256").canonical.encode()
    parts = request_parts(header={"alg": "HS256"})
    message = f"{parts['protected']}.{parts['payload']}".encode()
    return dumped(parts, signature=b64url(hmac.digest(public, message, hashlib.sha256)))


def changed_signature(change: Callable[[bytes], bytes], alg: str = "ES256") -> bytes:
    """Return a request whose signature octets were changed."""
    parts = request_parts(alg=alg)
    return dumped(parts, signature=b64url(change(un64url(parts["signature"]))))


def signed_for(message: Callable[[dict[str, Any]], str]) -> bytes:
    """Return a request whose signature is over something else than its signing input."""
    parts = request_parts()
    octets = sign(private_key(), message(parts).encode())
    return dumped(parts, signature=b64url(octets))


def der_signature() -> bytes:
    """Return a request whose signature is DER, as OpenSSL writes it."""
    parts = request_parts()
    message = f"{parts['protected']}.{parts['payload']}".encode()
    return dumped(parts, signature=b64url(private_key().sign(message, ec.ECDSA(hashes.SHA256()))))


def compact() -> bytes:
    """Return a request in compact form."""
    parts = request_parts()
    return ".".join(parts[name] for name in ("protected", "payload", "signature")).encode()


def general(count: int) -> bytes:
    """Return a request in general form with so many signatures."""
    parts = request_parts()
    one = {"protected": parts["protected"], "signature": parts["signature"]}
    return json.dumps({"payload": parts["payload"], "signatures": [one] * count}).encode()


def unprotected(*names: str) -> bytes:
    """Return a request with some header members moved out of the protected header."""
    header = json.loads(header_text())
    moved = {name: header.pop(name) for name in names}
    return dumped(request_parts(header_bytes=json.dumps(header).encode()), header=moved)


def member_twice(name: str) -> bytes:
    """Return a request with one outer member written twice."""
    parts = request_parts()
    text = json.dumps(parts)
    return (text[:-1] + f', "{name}": "{parts[name]}"}}').encode()


def changed_padding() -> bytes:
    """Return a request with padding behind the signature."""
    parts = request_parts()
    return dumped(parts, signature=parts["signature"] + "==")


RSA_JWK = jwk_json(private_key("RS256"))
EC_JWK = jwk_json(private_key("ES256"))
SMALL_N = b64url(((1 << 1023) | 1).to_bytes(128, "big"))
HUGE_N = b64url(((1 << 16383) | 1).to_bytes(2048, "big"))

BAD_ENVELOPES = [
    ("empty body", lambda: b"", MALFORMED),
    ("empty object", lambda: b"{}", MALFORMED),
    ("not JSON", lambda: b"hello", MALFORMED),
    ("array", lambda: b"[]", MALFORMED),
    ("compact form", compact, MALFORMED),
    ("general form, no signature", lambda: general(0), MALFORMED),
    ("general form, one signature", lambda: general(1), MALFORMED),
    ("general form, two signatures", lambda: general(2), MALFORMED),
    ("signatures beside signature", with_member(signatures=[]), MALFORMED),
    ("unprotected header, empty", with_member(header={}), MALFORMED),
    ("unprotected header with all", lambda: unprotected("alg", "kid", "nonce", "url"), MALFORMED),
    ("unprotected alg", lambda: unprotected("alg"), MALFORMED),
    ("unprotected nonce", lambda: unprotected("nonce"), MALFORMED),
    ("unprotected url", lambda: unprotected("url"), MALFORMED),
    ("unprotected kid", lambda: unprotected("kid"), MALFORMED),
    ("unknown member", with_member(comment="hello"), MALFORMED),
    ("member in upper case", with_member(Payload="AAAA"), MALFORMED),
    ("protected twice", lambda: member_twice("protected"), MALFORMED),
    ("payload twice", lambda: member_twice("payload"), MALFORMED),
    ("signature twice", lambda: member_twice("signature"), MALFORMED),
    ("no protected", with_member(protected=None), MALFORMED),
    ("no payload: detached", with_member(payload=None), MALFORMED),
    ("no signature", with_member(signature=None), MALFORMED),
    ("protected an object", with_member(protected={"alg": "ES256"}), MALFORMED),
    ("payload an object", with_member(payload={"a": 1}), MALFORMED),
    ("signature a list", with_member(signature=["AAAA"]), MALFORMED),
    ("protected empty", with_member(protected=""), MALFORMED),
    ("signature empty", with_member(signature=""), MALFORMED),
    ("protected padded", lambda: dumped(request_parts(), protected="e30="), MALFORMED),
    ("payload padded", with_member(payload="e30="), MALFORMED),
    ("signature padded", changed_padding, MALFORMED),
    ("payload in the other alphabet", with_member(payload="+/+/"), MALFORMED),
    ("payload with a newline", with_member(payload="e30\n"), MALFORMED),
    ("payload with unused bits", with_member(payload="e31"), MALFORMED),
    ("payload of one character", with_member(payload="e"), MALFORMED),
    ("protected not JSON", with_header_bytes(b"hello"), MALFORMED),
    ("protected an array", with_header_bytes(b"[]"), MALFORMED),
    (
        "protected with a mark",
        with_header_bytes(b"\xef\xbb\xbf" + header_text().encode()),
        MALFORMED,
    ),
    ("protected UTF-16", with_header_bytes(header_text().encode("utf-16")), MALFORMED),
    ("protected with text behind", with_header_bytes(header_text().encode() + b"x"), MALFORMED),
    ("alg twice", with_header_bytes(header_text(',"alg":"none"').encode()), MALFORMED),
    ("nonce twice", with_header_bytes(header_text(',"nonce":"AAAA"').encode()), MALFORMED),
    ("kid twice by escape", with_header_bytes(header_text(',"\\u006bid":"x"').encode()), MALFORMED),
]

BAD_HEADERS = [
    ("crit", with_header(crit=["exp"]), MALFORMED),
    ("crit empty", with_header(crit=[]), MALFORMED),
    ("crit that lists b64", with_header(crit=["b64"], b64=False), MALFORMED),
    ("b64 false", with_header(b64=False), MALFORMED),
    ("b64 true", with_header(b64=True), MALFORMED),
    ("typ", with_header(typ="JOSE+JSON"), MALFORMED),
    ("cty", with_header(cty="json"), MALFORMED),
    ("zip", with_header(zip="DEF"), MALFORMED),
    ("jku", with_header(jku="https://evil.example/keys"), MALFORMED),
    ("x5u", with_header(x5u="https://evil.example/cert"), MALFORMED),
    ("x5c", with_header(x5c=["AAAA"]), MALFORMED),
    ("enc", with_header(enc="A256GCM"), MALFORMED),
    ("unknown header", with_header(hello=1), MALFORMED),
    ("neither jwk nor kid", without("kid"), MALFORMED),
    ("both jwk and kid", with_header(jwk=EC_JWK), MALFORMED),
    ("kid null", with_header(kid=None), MALFORMED),
    ("kid empty", with_header(kid=""), MALFORMED),
    ("kid a number", with_header(kid=1), MALFORMED),
    ("kid with a newline", with_header(kid=KID + "\r\nX: y"), MALFORMED),
    ("kid with a space", with_header(kid="a b"), MALFORMED),
    ("kid not ASCII", with_header(kid=KID + "ä"), MALFORMED),
    ("kid of 3 kB", with_header(kid="a" * 3000), MALFORMED),
    ("no url", without("url"), MALFORMED),
    ("url null", with_header(url=None), MALFORMED),
    ("url empty", with_header(url=""), MALFORMED),
    ("url a list", with_header(url=[URL]), MALFORMED),
    ("url with NUL", with_header(url=URL + "\x00"), MALFORMED),
    ("no nonce", without("nonce"), BAD_NONCE),
    ("nonce null", with_header(nonce=None), BAD_NONCE),
    ("nonce empty", with_header(nonce=""), BAD_NONCE),
    ("nonce a number", with_header(nonce=7), MALFORMED),
    ("nonce padded", with_header(nonce="AAA="), MALFORMED),
    ("nonce in the other alphabet", with_header(nonce="+/+/"), MALFORMED),
    ("nonce with a newline", with_header(nonce="AAAA\n"), MALFORMED),
    ("nonce with a dot", with_header(nonce="AAAA.BBBB"), MALFORMED),
    ("nonce of 60 kB", with_header(nonce="A" * 60_000), MALFORMED),
]

BAD_ALGORITHMS = [
    ("no alg", without("alg"), MALFORMED),
    ("alg null", with_header(alg=None), MALFORMED),
    ("alg a list", with_header(alg=["ES256"]), MALFORMED),
    ("alg empty", with_header(alg=""), BAD_ALG),
    ("alg none", with_header(alg="none"), BAD_ALG),
    ("alg None", with_header(alg="None"), BAD_ALG),
    ("alg NONE", with_header(alg="NONE"), BAD_ALG),
    ("alg es256", with_header(alg="es256"), BAD_ALG),
    ("alg with a space", with_header(alg="ES256 "), BAD_ALG),
    ("alg HS256", with_header(alg="HS256"), BAD_ALG),
    ("alg HS256 under the public key", hs256_with_public_key, BAD_ALG),
    ("alg HS384", with_header(alg="HS384"), BAD_ALG),
    ("alg HS512", with_header(alg="HS512"), BAD_ALG),
    ("alg RS1", with_header(alg="RS1"), BAD_ALG),
    ("alg RS384", with_header(alg="RS384"), BAD_ALG),
    ("alg RS512", with_header(alg="RS512"), BAD_ALG),
    ("alg PS256", with_header(alg="PS256"), BAD_ALG),
    ("alg PS512", with_header(alg="PS512"), BAD_ALG),
    ("alg ES256K", with_header(alg="ES256K"), BAD_ALG),
    ("alg Ed448", with_header(alg="Ed448"), BAD_ALG),
    ("alg ML-DSA-44", with_header(alg="ML-DSA-44"), BAD_ALG),
    ("alg dir", with_header(alg="dir"), BAD_ALG),
    ("alg of 10 kB", with_header(alg="E" * 10_000), BAD_ALG),
    ("ES384 under a P-256 key", with_header(alg="ES384"), BAD_ALG),
    ("ES512 under a P-256 key", with_header(alg="ES512"), BAD_ALG),
    ("RS256 under a P-256 key", with_header(alg="RS256"), BAD_ALG),
    ("EdDSA under a P-256 key", with_header(alg="EdDSA"), BAD_ALG),
    ("ES256 with an RSA key", embedding(RSA_JWK), BAD_ALG),
    ("ES256 with a P-384 key", embedding(jwk_json(private_key("ES384"))), BAD_ALG),
    ("EdDSA with an EC key", embedding(EC_JWK, alg="EdDSA"), BAD_ALG),
]

BAD_KEYS = [
    ("jwk null", embedding(None), MALFORMED),
    ("jwk a string", embedding("key"), MALFORMED),
    ("jwk empty", embedding({}), MALFORMED),
    ("jwk oct", embedding({"kty": "oct", "k": b64url(MAC_KEY)}), MALFORMED),
    ("jwk private", embedding({**EC_JWK, "d": "AAAA"}), MALFORMED),
    ("jwk RSA 1024", embedding({**RSA_JWK, "n": SMALL_N}, alg="RS256"), BAD_KEY),
    ("jwk RSA 16384", embedding({**RSA_JWK, "n": HUGE_N}, alg="RS256"), BAD_KEY),
    ("jwk RSA e 3", embedding({**RSA_JWK, "e": "Aw"}, alg="RS256"), BAD_KEY),
    ("jwk P-224", embedding({**EC_JWK, "crv": "P-224"}), BAD_KEY),
    ("jwk of somebody else", embedding(jwk_json(private_key("ES256", "other"))), MALFORMED),
]

BAD_SIGNATURES = [
    ("signature of one octet", lambda: changed_signature(lambda s: s[:1]), MALFORMED),
    ("signature one octet short", lambda: changed_signature(lambda s: s[:-1]), MALFORMED),
    ("signature one octet long", lambda: changed_signature(lambda s: s + b"\x00"), MALFORMED),
    ("signature octets twice", lambda: changed_signature(lambda s: s + s), MALFORMED),
    ("signature all zeros", lambda: changed_signature(lambda s: bytes(len(s))), MALFORMED),
    ("signature all ones", lambda: changed_signature(lambda s: b"\xff" * len(s)), MALFORMED),
    ("signature r zero", lambda: changed_signature(lambda s: bytes(32) + s[32:]), MALFORMED),
    ("signature s zero", lambda: changed_signature(lambda s: s[:32] + bytes(32)), MALFORMED),
    ("signature halves swapped", lambda: changed_signature(lambda s: s[32:] + s[:32]), MALFORMED),
    ("signature in DER", der_signature, MALFORMED),
    ("signature over the payload", lambda: signed_for(lambda p: p["payload"]), MALFORMED),
    ("signature over the header", lambda: signed_for(lambda p: p["protected"]), MALFORMED),
    (
        "signature over decoded payload",
        lambda: signed_for(lambda p: p["protected"] + "." + un64url(p["payload"]).decode()),
        MALFORMED,
    ),
    ("payload replaced", with_member(payload=b64url(b'{"a":1}')), MALFORMED),
    ("payload emptied", with_member(payload=""), MALFORMED),
]

BAD_REQUESTS = [*BAD_ENVELOPES, *BAD_HEADERS, *BAD_ALGORITHMS, *BAD_KEYS, *BAD_SIGNATURES]


def test_the_table_is_long_enough() -> None:
    """At least 80 ways to knock at the door wrongly are tried."""
    assert len(BAD_REQUESTS) >= 80
    assert len({name for name, _, _ in BAD_REQUESTS}) == len(BAD_REQUESTS)


@pytest.mark.parametrize(
    ("make", "kind"), [pytest.param(m, k, id=name) for name, m, k in BAD_REQUESTS]
)
def test_bad_request_is_refused_and_its_good_twin_opens(
    make: Callable[[], bytes], kind: ProblemType
) -> None:
    """Each bad request gets its problem type; the request it was made from opens."""
    body = make()
    started = time.thread_time()
    with pytest.raises(Problem) as caught:
        open_request(body)
    assert time.thread_time() - started < 0.05
    assert caught.value.type is kind
    assert caught.value.status == 400
    assert open_request(request_body()).payload == b"{}"
    assert open_request(request_body(header={"jwk": EC_JWK}, drop=["kid"])).key == jwk_of()


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("form", ["kid", "jwk"])
def test_request_opens_under_each_algorithm(alg: str, form: str) -> None:
    """Every accepted algorithm verifies, with a known key and with an embedded one."""
    key = jwk_of(alg)
    if form == "kid":
        body = request_body(alg=alg, payload=b'{"a":1}')
    else:
        header = {"jwk": jwk_json(private_key(alg))}
        body = request_body(alg=alg, payload=b'{"a":1}', header=header, drop=["kid"])
    request = open_request(body, key=key)
    assert request == VerifiedRequest(
        payload=b'{"a":1}', key=key, kid=KID if form == "kid" else None, url=URL, nonce=NONCE
    )
    assert request.json() == {"a": 1}


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_signature_of_another_key_is_refused(alg: str) -> None:
    """The same algorithm under another key does not verify."""
    with pytest.raises(Problem, match="does not verify"):
        open_request(request_body(alg=alg), key=jwk_of(alg, "another"))
    assert open_request(request_body(alg=alg), key=jwk_of(alg))


@pytest.mark.parametrize("example", JOSE["signatures"], ids=lambda example: example["id"])
def test_signature_of_the_standard_verifies(example: dict[str, Any]) -> None:
    """The worked examples verify, and not when one octet of the message differs."""
    key = parse_jwk(example["jwk"])

    def verify(message: bytes) -> VerifiedRequest:
        parsed = ParsedRequest(
            alg=example["alg"],
            nonce=NONCE,
            url=URL,
            jwk=None,
            kid=KID,
            payload=b"",
            signing_input=message,
            signature=un64url(example["signature"]),
        )
        return verify_request(parsed, key=key, expected_url=URL)

    assert verify(example["signing_input"].encode()).key == key
    with pytest.raises(Problem, match="does not verify"):
        verify(example["signing_input"].encode() + b"A")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://acme.example/acme/new-order/", id="slash behind"),
        pytest.param("https://acme.example/acme/new-order?", id="empty query"),
        pytest.param("https://acme.example/acme/new-order?a=1", id="query"),
        pytest.param("https://acme.example/acme/new-order#a", id="fragment"),
        pytest.param("https://acme.example/acme/New-Order", id="path in another case"),
        pytest.param("https://ACME.example/acme/new-order", id="host in another case"),
        pytest.param("https://acme.example:443/acme/new-order", id="port"),
        pytest.param("http://acme.example/acme/new-order", id="scheme"),
        pytest.param("https://evil.example/acme/new-order", id="host"),
        pytest.param("https://acme.example/acme/new-account", id="path"),
        pytest.param("https://acme.example/acme/../acme/new-order", id="dots"),
        pytest.param("https://acme.example/acme/new%2Dorder", id="percent"),
        pytest.param("/acme/new-order", id="relative"),
    ],
)
def test_request_for_another_url_is_unauthorized(url: str) -> None:
    """RFC 8555 §6.4: the URL is compared octet by octet; the right one opens."""
    body = request_body(header={"url": url})
    with pytest.raises(Problem, match="signed for url") as caught:
        open_request(body)
    assert caught.value.type is UNAUTHORIZED
    assert open_request(body, url=url).url == url


def test_unsupported_algorithm_lists_the_supported_ones() -> None:
    """RFC 8555 §6.2: the problem has the member algorithms; a misfit lists what fits."""
    with pytest.raises(Problem) as caught:
        parse_request(request_body(header={"alg": "HS256"}))
    assert caught.value.to_json()["algorithms"] == list(ALGORITHMS)
    with pytest.raises(Problem) as caught:
        open_request(request_body(header={"alg": "ES384"}))
    assert caught.value.to_json()["algorithms"] == ["ES256"]


def test_embedded_key_speaks_for_itself_only() -> None:
    """A request that embeds a key is not verified as somebody else's."""
    parsed = parse_request(request_body(header={"jwk": EC_JWK}, drop=["kid"]))
    with pytest.raises(Problem) as caught:
        verify_request(parsed, key=jwk_of("ES256", "account"), expected_url=URL)
    assert caught.value.type is UNAUTHORIZED
    assert parsed.jwk is not None
    assert verify_request(parsed, key=parsed.jwk, expected_url=URL)


def test_empty_payload_is_a_post_as_get() -> None:
    """RFC 8555 §6.3: the empty string reads, an empty object does not."""
    read = open_request(request_body(payload=b""))
    assert read.is_post_as_get
    with pytest.raises(Problem, match="payload is empty"):
        read.json()
    answer = open_request(request_body(payload=b"{}"))
    assert not answer.is_post_as_get
    assert answer.json() == {}


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1,"a":1}', id="member twice"),
        pytest.param(b"{} ", id="white space is fine"),
        pytest.param(b"\xff", id="not UTF-8"),
    ],
)
def test_payload_is_read_strictly(payload: bytes) -> None:
    """The payload obeys the same rules as the envelope."""
    request = open_request(request_body(payload=payload))
    if payload == b"{} ":
        assert request.json() == {}
        return
    with pytest.raises(Problem, match="payload"):
        request.json()


def test_white_space_and_order_of_members_do_not_matter() -> None:
    """A pretty-printed envelope is the same envelope."""
    parts = request_parts()
    body = json.dumps(dict(reversed(parts.items())), indent=4).encode() + b"\n"
    assert open_request(body) == open_request(json.dumps(parts).encode())


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_sealed_request_opens(alg: str) -> None:
    """What our client side seals, our server side opens."""
    protected = {"alg": alg, "nonce": NONCE, "url": URL, "kid": KID}
    message = signing_input(protected, b'{"a":1}')
    body = seal(message, sign(private_key(alg), message, alg))
    assert open_request(body, key=jwk_of(alg)).json() == {"a": 1}
    assert list(json.loads(body)) == ["protected", "payload", "signature"]


def test_sealed_post_as_get_has_an_empty_payload() -> None:
    """An empty payload is written as the empty string."""
    message = signing_input({"alg": "ES256", "nonce": NONCE, "url": URL, "kid": KID}, b"")
    body = seal(message, sign(private_key(), message))
    assert json.loads(body)["payload"] == ""
    assert open_request(body).is_post_as_get


def test_another_library_reads_what_we_seal() -> None:
    """josepy, which certbot is made of, verifies our envelope."""
    message = signing_input({"alg": "ES256", "nonce": NONCE, "url": URL, "kid": KID}, b"{}")
    body = seal(message, sign(private_key(), message))
    jws = JWS.json_loads(body.decode())
    assert jws.verify(JWKEC(key=private_key().public_key()))
    assert encode_b64jose(jws.payload) == "e30"


# == External account binding ==================================================================


def binding_parts(
    alg: str = "HS256",
    *,
    header: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    payload: bytes | None = None,
    mac_key: bytes = MAC_KEY,
) -> dict[str, Any]:
    """Return an external account binding, written without the code under test."""
    protected = {"alg": alg, "kid": "key-1", "url": URL, **(header or {})}
    for name in drop:
        protected.pop(name)
    content = json.dumps(EC_JWK).encode() if payload is None else payload
    message = f"{b64url(json.dumps(protected).encode())}.{b64url(content)}"
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
    return {
        "protected": message.split(".")[0],
        "payload": message.split(".")[1],
        "signature": b64url(hmac.digest(mac_key, message.encode(), digest)),
    }


def open_binding(inner: object, mac_key: bytes = MAC_KEY, key: Jwk | None = None) -> str:
    """Parse and verify a binding; return its key id."""
    parsed = parse_binding(inner, expected_url=URL, account_key=key or jwk_of())
    return verify_binding(parsed, mac_key).key_id


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_binding_opens_under_each_mac(alg: str) -> None:
    """Each MAC verifies, and its binding names the key id."""
    assert open_binding(binding_parts(alg)) == "key-1"


def test_binding_payload_may_have_other_members() -> None:
    """The key is compared by thumbprint, not by text."""
    payload = json.dumps({**EC_JWK, "use": "sig"}).encode()
    assert open_binding(binding_parts(payload=payload)) == "key-1"


def cut_mac(parts: dict[str, Any]) -> dict[str, Any]:
    """Return a binding with half its MAC."""
    return {**parts, "signature": b64url(un64url(parts["signature"])[:16])}


def swapped_payload() -> dict[str, Any]:
    """Return a binding whose payload was emptied after it was signed."""
    return {**binding_parts(), "payload": b64url(b"{}")}


OTHER_KEY = json.dumps(jwk_json(private_key("ES256", "other"))).encode()

BAD_BINDINGS = [
    ("null", lambda: None, MALFORMED),
    ("string", lambda: "binding", MALFORMED),
    ("array", list, MALFORMED),
    ("empty", dict, MALFORMED),
    ("unprotected header", lambda: {**binding_parts(), "header": {}}, MALFORMED),
    ("signatures", lambda: {**binding_parts(), "signatures": []}, MALFORMED),
    ("no signature", lambda: {**binding_parts(), "signature": ""}, MALFORMED),
    ("padded", lambda: {**binding_parts(), "signature": "AAA="}, MALFORMED),
    ("alg none", lambda: binding_parts("none"), MALFORMED),
    ("alg ES256", lambda: binding_parts("ES256"), MALFORMED),
    ("alg HS1", lambda: binding_parts("HS1"), MALFORMED),
    ("no alg", lambda: binding_parts(drop=("alg",)), MALFORMED),
    ("alg a list", lambda: binding_parts(header={"alg": ["HS256"]}), MALFORMED),
    ("no kid", lambda: binding_parts(drop=("kid",)), MALFORMED),
    ("kid empty", lambda: binding_parts(header={"kid": ""}), MALFORMED),
    ("kid with a newline", lambda: binding_parts(header={"kid": "a\nb"}), MALFORMED),
    ("kid of 300 characters", lambda: binding_parts(header={"kid": "a" * 300}), MALFORMED),
    ("no url", lambda: binding_parts(drop=("url",)), MALFORMED),
    ("another url", lambda: binding_parts(header={"url": URL + "/"}), UNAUTHORIZED),
    ("nonce", lambda: binding_parts(header={"nonce": NONCE}), MALFORMED),
    ("jwk", lambda: binding_parts(header={"jwk": EC_JWK}), MALFORMED),
    ("crit", lambda: binding_parts(header={"crit": ["a"]}), MALFORMED),
    ("payload empty", lambda: binding_parts(payload=b""), MALFORMED),
    ("payload not a key", lambda: binding_parts(payload=b"{}"), MALFORMED),
    ("payload another key", lambda: binding_parts(payload=OTHER_KEY), UNAUTHORIZED),
    ("MAC of another key", lambda: binding_parts(mac_key=b"x" * 32), UNAUTHORIZED),
    ("MAC cut", lambda: cut_mac(binding_parts()), UNAUTHORIZED),
    ("MAC over another payload", swapped_payload, MALFORMED),
]


@pytest.mark.parametrize(
    ("make", "kind"), [pytest.param(m, k, id=name) for name, m, k in BAD_BINDINGS]
)
def test_bad_binding_is_refused_and_its_good_twin_opens(
    make: Callable[[], object], kind: ProblemType
) -> None:
    """Each bad binding gets its problem type; the binding it was made from opens."""
    with pytest.raises(Problem) as caught:
        open_binding(make())
    assert caught.value.type is kind
    assert open_binding(binding_parts()) == "key-1"


def test_binding_of_another_account_key_is_refused() -> None:
    """A binding that was seen somewhere cannot be used with another key."""
    with pytest.raises(Problem, match="another account key"):
        open_binding(binding_parts(), key=jwk_of("ES256", "thief"))


def test_unknown_key_id_and_bad_mac_are_told_in_the_same_words() -> None:
    """The answer does not tell which key ids exist."""
    parsed = parse_binding(binding_parts(), expected_url=URL, account_key=jwk_of())
    with pytest.raises(Problem) as caught:
        verify_binding(parsed, b"another key")
    assert caught.value == binding_refused()
    assert "key-1" not in caught.value.detail


def test_empty_mac_key_never_verifies() -> None:
    """A MAC key that failed to load is our bug, not an open door."""
    parsed = parse_binding(
        seal_binding("key-1", b"k", "HS256", URL, jwk_of()), expected_url=URL, account_key=jwk_of()
    )
    with pytest.raises(ValueError, match="empty MAC key"):
        verify_binding(parsed, b"")
    with pytest.raises(ValueError, match="empty MAC key"):
        seal_binding("key-1", b"", "HS256", URL, jwk_of())
    assert verify_binding(parsed, b"k").key_id == "key-1"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_sealed_binding_opens(alg: str) -> None:
    """What our client side binds, our server side accepts."""
    inner = seal_binding("key-1", MAC_KEY, alg, URL, jwk_of())
    assert open_binding(json.loads(json.dumps(inner))) == "key-1"


def test_binding_is_sealed_with_a_mac_only() -> None:
    """A signature algorithm cannot stand in a binding."""
    with pytest.raises(ValueError, match="is no MAC"):
        seal_binding("key-1", MAC_KEY, "ES256", URL, jwk_of())
