"""Both keys sign a change, and both mean the same account (RFC 8555 §7.3.5)."""

import json
from typing import Any

import pytest

from broker.protocol.jws import VerifiedRequest, jwk_from_public_key, seal
from broker.protocol.key_change import key_change_input, verify_key_change
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol.builders import KID, NONCE, b64url, jwk_json, private_key, sign

URL = "https://acme.example/acme/key-change"
OLD, NEW, OTHER = (private_key("ES256", label) for label in ("old", "new", "other"))


def request(
    *,
    key: Any = NEW,
    alg: str = "ES256",
    header: dict[str, Any] | None = None,
    payload: Any = None,
    inner: dict[str, Any] | None = None,
) -> VerifiedRequest:
    """Return an outer request, opened, around an inner JWS; None takes a member out."""
    protected = {"alg": alg, "jwk": jwk_json(key), "url": URL, **(header or {})}
    protected = {name: value for name, value in protected.items() if value is not None}
    if payload is None:
        payload = {"account": KID, "oldKey": jwk_json(OLD)}
    message = f"{b64url(json.dumps(protected).encode())}.{b64url(json.dumps(payload).encode())}"
    parts = message.split(".")
    whole = {
        "protected": parts[0],
        "payload": parts[1],
        "signature": b64url(sign(key, message.encode(), alg)),
        **(inner or {}),
    }
    old_jwk = jwk_from_public_key(OLD.public_key())
    return VerifiedRequest(json.dumps(whole).encode(), old_jwk, KID, URL, NONCE)


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "EdDSA", "RS256"])
def test_change_to_a_key_of_each_kind_is_proven(alg: str) -> None:
    """The new key need not be of the old one's kind."""
    key = private_key(alg, "new")
    change = verify_key_change(request(key=key, alg=alg))
    assert change.new_key == jwk_from_public_key(key.public_key())
    assert change.old_key == jwk_from_public_key(OLD.public_key())


def test_what_we_ask_of_a_ca_is_what_we_would_grant() -> None:
    """Our own inner JWS passes every check that we make downstream, and holds no nonce."""
    old, new = jwk_from_public_key(OLD.public_key()), jwk_from_public_key(NEW.public_key())
    octets = key_change_input(new_key=new, old_key=old, account_url=KID, url=URL)
    inner = seal(octets, sign(NEW, octets, "ES256"))
    change = verify_key_change(VerifiedRequest(inner, old, KID, URL, NONCE))
    assert (change.old_key, change.new_key) == (old, new)


MALFORMED, UNAUTHORIZED = ProblemType.MALFORMED, ProblemType.UNAUTHORIZED
BAD_ALG, BAD_KEY = ProblemType.BAD_SIGNATURE_ALGORITHM, ProblemType.BAD_PUBLIC_KEY

REFUSED = [
    pytest.param({"header": {"nonce": NONCE}}, MALFORMED, id="nonce inside"),
    pytest.param({"header": {"kid": KID}}, MALFORMED, id="kid inside"),
    pytest.param({"header": {"jwk": None}}, MALFORMED, id="no new key"),
    pytest.param({"header": {"url": None}}, MALFORMED, id="no url inside"),
    pytest.param({"header": {"crit": ["x"]}}, MALFORMED, id="unknown header"),
    pytest.param({"header": {"url": URL + "/"}}, UNAUTHORIZED, id="another url"),
    pytest.param({"header": {"jwk": jwk_json(OTHER)}}, MALFORMED, id="signed by another key"),
    pytest.param({"header": {"alg": "HS256"}}, BAD_ALG, id="a MAC"),
    pytest.param({"header": {"alg": "none"}}, BAD_ALG, id="no algorithm"),
    pytest.param({"header": {"alg": "RS256"}}, BAD_ALG, id="algorithm of another kind"),
    pytest.param({"header": {"jwk": {"kty": "oct", "k": "AAAA"}}}, MALFORMED, id="secret key"),
    pytest.param({"header": {"jwk": {"kty": "EC", "crv": "P-224"}}}, BAD_KEY, id="small curve"),
    pytest.param({"payload": {"account": KID}}, MALFORMED, id="no oldKey"),
    pytest.param({"payload": {"oldKey": jwk_json(OLD)}}, MALFORMED, id="no account"),
    pytest.param({"payload": []}, MALFORMED, id="payload is a list"),
    pytest.param(
        {"payload": {"account": KID + "0", "oldKey": jwk_json(OLD)}},
        UNAUTHORIZED,
        id="another account",
    ),
    pytest.param(
        {"payload": {"account": KID, "oldKey": jwk_json(OTHER)}}, UNAUTHORIZED, id="another oldKey"
    ),
    pytest.param({"inner": {"signature": b64url(b"x" * 64)}}, MALFORMED, id="bad signature"),
    pytest.param({"inner": {"header": {}}}, MALFORMED, id="unprotected header"),
    pytest.param({"inner": {"payload": ""}}, MALFORMED, id="empty payload"),
]


@pytest.mark.parametrize(("changes", "kind"), REFUSED)
def test_anything_amiss_is_refused(changes: dict[str, Any], kind: ProblemType) -> None:
    """Each is one step from a change that passes."""
    verify_key_change(request())
    with pytest.raises(Problem) as refused:
        verify_key_change(request(**changes))
    assert refused.value.type is kind


def test_payload_that_is_no_jws_is_refused() -> None:
    """What a confused client might send instead."""
    outer = request()
    plain = VerifiedRequest(
        json.dumps({"account": KID}).encode(), outer.key, outer.kid, outer.url, outer.nonce
    )
    with pytest.raises(Problem) as refused:
        verify_key_change(plain)
    assert refused.value.type is MALFORMED
