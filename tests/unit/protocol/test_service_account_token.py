"""Tokens of service accounts: what is believed, and all that is not."""

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.protocol.service_account_token import (
    MAX_KEY_SET_BYTES,
    MAX_KEYS,
    ServiceAccount,
    TokenRejected,
    TokenTerms,
    parse_key_set,
    parse_review,
    parse_token,
    verify_token,
)
from tests.fakes.clock import START
from tests.fakes.cluster_issuer import AUDIENCE, ISSUER, ClusterIssuer, encoded
from tests.unit.protocol.builders import b64url, jwk_json, private_key

ISSUERS = {
    kind: ClusterIssuer(private_key(kind, "cluster"), f"id-of-{kind}")
    for kind in ("ES256", "RS256")
}
ES, RS = ISSUERS["ES256"], ISSUERS["RS256"]
TERMS = TokenTerms(ISSUER, AUDIENCE)
POSTFIX = ServiceAccount(
    namespace="mail", name="postfix", pod="postfix-0", node="worker-1", pod_uid="u-2"
)


def verified(
    token: str, *, issuer: ClusterIssuer = ES, later: timedelta = timedelta(0)
) -> ServiceAccount:
    """Return whose token it is, by the keys of *issuer*."""
    keys = parse_key_set(issuer.key_set())
    return verify_token(parse_token(token), keys, TERMS, START + later)


@pytest.mark.parametrize("kind", ISSUERS)
def test_token_of_a_pod_is_believed(kind: str) -> None:
    """Signed by the cluster, meant for us, and now."""
    issuer = ISSUERS[kind]
    assert verified(issuer.token(START), issuer=issuer) == POSTFIX


def test_token_without_a_pod_is_of_its_service_account() -> None:
    """`kubectl create token` binds to none."""
    told = {"namespace": "mail", "serviceaccount": {"name": "postfix", "uid": "u-1"}}
    found = verified(ES.token(START, **{"kubernetes.io": told}))
    assert (str(found), found.pod, found.node) == ("mail/postfix", None, None)


def test_audience_may_be_one_text() -> None:
    """RFC 7519 §4.1.3 allows both forms."""
    assert verified(ES.token(START, aud=AUDIENCE)) == POSTFIX


def told(**changes: Any) -> dict[str, Any]:
    """Return the claim of Kubernetes with changes."""
    claim = {**ES.claims(START)["kubernetes.io"], **changes}
    return {"kubernetes.io": {name: value for name, value in claim.items() if value is not None}}


CLAIMS: dict[str, dict[str, Any]] = {
    "other issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "issuer is a list": {"iss": [ISSUER]},
    "other audience": {"aud": ["vault"]},
    "no audience": {"aud": None},
    "audience as a part of a text": {"aud": "penstock-2"},
    "audience is an object": {"aud": {AUDIENCE: True}},
    "never ends": {"exp": None},
    "end is text": {"exp": "9999999999"},
    "end is true": {"exp": True},
    "end beyond all time": {"exp": 1e300},
    "begins later": {"nbf": int((START + timedelta(minutes=2)).timestamp())},
    "made later": {"iat": int((START + timedelta(minutes=2)).timestamp())},
    "no claim of Kubernetes": {"kubernetes.io": None},
    "claim of Kubernetes is text": {"kubernetes.io": "mail/postfix"},
    "subject of another account": {"sub": "system:serviceaccount:mail:root"},
    "subject of another namespace": {"sub": "system:serviceaccount:kube-system:postfix"},
    "no subject": {"sub": None},
    "subject is a user": {"sub": "postfix"},
    "namespace with a dot": {
        "sub": "system:serviceaccount:mail.x:postfix",
        **told(namespace="mail.x"),
    },
    "namespace in upper case": {
        "sub": "system:serviceaccount:Mail:postfix",
        **told(namespace="Mail"),
    },
    "no namespace": told(namespace=None),
    "account is text": told(serviceaccount="postfix"),
    "no account": told(serviceaccount=None),
    "pod with a slash": told(pod={"name": "../postfix-0"}),
    "pod with a line break": told(pod={"name": "postfix-0\n"}),
    "pod without a name": told(pod={"uid": "u-2"}),
    "pod is a list": told(pod=["postfix-0"]),
    "pod with 254 characters": told(pod={"name": "a" * 254}),
}


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS)
def test_claims_that_are_refused(changes: dict[str, Any]) -> None:
    """A signature is not enough: a token is for one audience, one time and one account."""
    with pytest.raises(TokenRejected):
        verified(ES.token(START, **changes))


def test_token_is_good_up_to_its_end_and_no_longer() -> None:
    """The issuer's clock may be ahead a little; an end is an end."""
    token = ES.token(START)
    assert verified(token, later=timedelta(minutes=59, seconds=59)) == POSTFIX
    assert verified(token, later=timedelta(seconds=-30)) == POSTFIX
    for later in (timedelta(hours=1), timedelta(seconds=-31)):
        with pytest.raises(TokenRejected):
            verified(token, later=later)


def confused(alg: str) -> str:
    """Return a token whose MAC key is the issuer's public key, as anybody can make one."""
    public = RS.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = encoded({"alg": alg, "kid": RS.key_id})
    message = f"{header}.{encoded(RS.claims(START))}"
    return f"{message}.{b64url(hmac.new(public, message.encode(), hashlib.sha256).digest())}"


def unsigned(signature: str = "") -> str:
    """Return a token that says that it is not signed."""
    header = encoded({"alg": "none", "kid": RS.key_id})
    return f"{header}.{encoded(RS.claims(START))}.{signature}"


STRANGER = ClusterIssuer(private_key("RS256", "stranger"), RS.key_id)

HOSTILE: dict[str, Callable[[], str]] = {
    "none": unsigned,
    "none with a signature": lambda: unsigned("AAAA"),
    "HS256 by the public key": lambda: confused("HS256"),
    "MAC under the right alg": lambda: confused("RS256"),
    "ES256 with the id of an RSA key": lambda: ES.token(START, {"kid": RS.key_id}),
    "PS256": lambda: RS.token(START, {"alg": "PS256"}),
    "ES384": lambda: RS.token(START, {"alg": "ES384"}),
    "alg in lower case": lambda: RS.token(START, {"alg": "rs256"}),
    "alg is a list": lambda: RS.token(START, {"alg": ["RS256"]}),
    "no alg": lambda: RS.token(START, {"alg": None}),
    "unknown kid": lambda: RS.token(START, {"kid": "another"}),
    "no kid": lambda: RS.token(START, {"kid": None}),
    "kid is a number": lambda: RS.token(START, {"kid": 1}),
    "kid as a path": lambda: RS.token(START, {"kid": "../../dev/null"}),
    "key of a stranger under the right id": lambda: STRANGER.token(START),
    "embedded jwk": lambda: STRANGER.token(START, {"jwk": jwk_json(STRANGER.key)}),
    "jku": lambda: STRANGER.token(START, {"jku": "https://evil.example/keys"}),
    "x5u": lambda: STRANGER.token(START, {"x5u": "https://evil.example/chain"}),
    "crit": lambda: RS.token(START, {"crit": ["exp"]}),
    "b64 false": lambda: RS.token(START, {"b64": False}),
    "of another type": lambda: RS.token(START, {"typ": "at+jwt"}),
    "claims changed behind the signature": lambda: swapped(),
    "empty": lambda: "",
    "two parts": lambda: "a.b",
    "five parts": lambda: "a.b.c.d.e",
    "padded": lambda: RS.token(START) + "==",
    "a space behind it": lambda: RS.token(START) + " ",
    "standard alphabet": lambda: RS.token(START).replace("-", "+").replace("_", "/") + "+",
    "too long": lambda: RS.token(START, {"kid": "k" * 9000}),
    "a member twice": lambda: RS.signed(
        b64url(b'{"alg":"RS256","alg":"none","kid":"id-of-RS256"}'), encoded(RS.claims(START))
    ),
    "claims are a list": lambda: RS.signed(encoded({"alg": "RS256"}), encoded(b"[]")),
    "deep": lambda: RS.signed(
        encoded({"alg": "RS256"}), encoded(b'{"a":' * 600 + b"1" + b"}" * 600)
    ),
    "NaN": lambda: RS.signed(encoded({"alg": "RS256", "kid": RS.key_id}), encoded(b'{"exp": NaN}')),
    "digits without end": lambda: RS.signed(
        encoded({"alg": "RS256", "kid": RS.key_id}), encoded(b'{"exp": ' + b"9" * 5000 + b"}")
    ),
}


def swapped() -> str:
    """Return a token whose claims are another's than were signed."""
    header, _, signature = RS.token(START).split(".")
    return (
        f"{header}.{encoded(RS.claims(START, sub='system:serviceaccount:mail:root'))}.{signature}"
    )


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tokens_prove_nothing(make: Callable[[], str]) -> None:
    """Each is refused, and the same token without the trick is believed."""
    with pytest.raises(TokenRejected):
        verified(make(), issuer=RS)
    assert verified(RS.token(START), issuer=RS) == POSTFIX


def test_any_flipped_character_is_refused() -> None:
    """Header, claims and signature are each bound to the rest."""
    token = ES.token(START)
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(TokenRejected):
            verified(token[:place] + other + token[place + 1 :])


def test_keys_that_cannot_be_used_are_passed_over() -> None:
    """A set may hold keys for encryption, of other kinds, and without an id."""
    keys = [
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"},
        {**jwk_json(private_key("ES256", "enc")), "use": "enc", "kid": "b"},
        jwk_json(private_key("ES256", "nameless")),
        {"kty": "future", "kid": "c"},
        *json.loads(ES.key_set())["keys"],
    ]
    assert set(parse_key_set(json.dumps({"keys": keys}).encode())) == {ES.key_id}


ONE = json.loads(ES.key_set())["keys"][0]

KEY_SETS: dict[str, bytes] = {
    "no JSON": b"<html>",
    "a list": b"[]",
    "no keys": b"{}",
    "empty": b'{"keys": []}',
    "an entry that is text": b'{"keys": ["x"]}',
    "a private key": json.dumps({"keys": [{**ONE, "d": "AAAA"}]}).encode(),
    "a symmetric key": b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}',
    "an id twice": json.dumps({"keys": [ONE, ONE]}).encode(),
    "none to use": json.dumps({"keys": [{**ONE, "use": "enc"}]}).encode(),
    "too many": json.dumps({"keys": [ONE] * (MAX_KEYS + 1)}).encode(),
    "too large": b" " * (MAX_KEY_SET_BYTES + 1),
    "a curve of ours, and no point": json.dumps({"keys": [{**ONE, "y": ONE["x"]}]}).encode(),
}


@pytest.mark.parametrize("data", KEY_SETS.values(), ids=KEY_SETS)
def test_key_sets_that_are_refused(data: bytes) -> None:
    """Unsure means no key."""
    with pytest.raises(ValueError, match=r"."):
        parse_key_set(data)


def review(**changes: Any) -> bytes:
    """Return a TokenReview as an API server answers it, with a changed status."""
    status: dict[str, Any] = {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {
            "username": "system:serviceaccount:mail:postfix",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["postfix-0"],
                "authentication.kubernetes.io/pod-uid": ["u-2"],
                "authentication.kubernetes.io/node-name": ["worker-1"],
            },
        },
    }
    return json.dumps({"kind": "TokenReview", "status": {**status, **changes}}).encode()


def test_reviewed_token_is_believed() -> None:
    """The API server says whose it is, and for which audience."""
    assert parse_review(review(), AUDIENCE) == POSTFIX
    found = parse_review(review(user={"username": "system:serviceaccount:mail:x"}), AUDIENCE)
    assert (found.name, found.pod) == ("x", None)


REVIEWS: dict[str, dict[str, Any]] = {
    "not authenticated": {"authenticated": False},
    "authenticated as text": {"authenticated": "true"},
    "other audience": {"audiences": ["vault"]},
    "no audience": {"audiences": None},
    "a person": {"user": {"username": "admin"}},
    "a node": {"user": {"username": "system:node:worker-1"}},
    "no account": {"user": {"username": "system:serviceaccount:mail"}},
    "two pods": {
        "user": {
            "username": "system:serviceaccount:mail:postfix",
            "extra": {"authentication.kubernetes.io/pod-name": ["a", "b"]},
        }
    },
    "two uids": {
        "user": {
            "username": "system:serviceaccount:mail:postfix",
            "extra": {"authentication.kubernetes.io/pod-uid": ["a", "b"]},
        }
    },
}


@pytest.mark.parametrize("changes", REVIEWS.values(), ids=REVIEWS)
def test_reviews_that_prove_nothing(changes: dict[str, Any]) -> None:
    """An old API server leaves out audiences that it did not look at; that is a no."""
    with pytest.raises(TokenRejected):
        parse_review(review(**changes), AUDIENCE)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"status": 1}', review(user=None)])
def test_what_is_no_review_is_told_apart(data: bytes) -> None:
    """It says nothing of the token, so the answer is: try later."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_review(data, AUDIENCE)
    assert not isinstance(caught.value, TokenRejected)
