"""Changing an account's key: the inner JWS of RFC 8555 §7.3.5, opened and proven.

The outer request is a request like any other, signed by the old key.  Inside it the new key signs
which account it is for and which key it replaces, so that neither key's holder can be made to
take part without wanting it.  Who else has the new key is a matter of the store, not of the form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, NoReturn

from broker.protocol.encoding import parse_json_object
from broker.protocol.flattened import MAX_HEADER_URL_CHARS, open_flattened, read_visible
from broker.protocol.jws import (
    Jwk,
    VerifiedRequest,
    parse_jwk,
    read_algorithm,
    signing_input,
    verify_signature,
)
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["VerifiedKeyChange", "key_change_input", "verify_key_change"]

_WHAT: Final = "key change's inner JWS"
_HEADERS: Final = frozenset({"alg", "jwk", "url"})
"""All that the inner header may hold; RFC 8555 §7.3.5 forbids a nonce in it by name."""


@dataclass(frozen=True, slots=True)
class VerifiedKeyChange:
    """A change that the holders of both keys signed, for this very account."""

    old_key: Jwk
    new_key: Jwk


def verify_key_change(request: VerifiedRequest) -> VerifiedKeyChange:
    """Return the change that the payload of *request*, signed by an account, asks for.

    Every check of RFC 8555 §7.3.5 but the last, whether another account has the key.

    Raises:
        Problem: malformed for its form or a signature that does not verify, badPublicKey or
            badSignatureAlgorithm for the new key, unauthorized where the two JWS disagree.
            Tell the client.
    """
    inner = open_flattened(request.json(), _WHAT, _HEADERS)
    header = inner.header
    if "jwk" not in header:
        _malformed(f"{_WHAT} has no jwk, expected the new key")
    url = read_visible(header, "url", MAX_HEADER_URL_CHARS)
    alg = read_algorithm(header)
    new_key = parse_jwk(header["jwk"])
    verify_signature(alg, new_key, inner.signing_input, inner.signature)
    if url != request.url:
        _disagree(f"was made for url '{printable(url, 300)}', expected that of the outer JWS")
    payload = parse_json_object(inner.payload, what=f"{_WHAT} payload")
    account = payload.get("account")
    if not isinstance(account, str):
        _malformed(f"{_WHAT} has no account, expected the account's URL")
    if account != request.kid:
        _disagree(f"names account '{printable(account, 300)}', expected the one that signed")
    if "oldKey" not in payload:
        _malformed(f"{_WHAT} has no oldKey, expected the account's key until now")
    old_key = parse_jwk(payload["oldKey"])
    if old_key != request.key:
        _disagree("names another oldKey than the account's key")
    return VerifiedKeyChange(old_key, new_key)


def key_change_input(*, new_key: Jwk, old_key: Jwk, account_url: str, url: str) -> bytes:
    """Return the octets that the new key signs to ask a CA for a change (RFC 8555 §7.3.5).

    `jws.seal` makes the inner JWS of them and of the signature; that, as an object, is the
    payload of a request that the old key signs.  *url* is the CA's ``keyChange``, in both.
    """
    header = {"alg": new_key.algorithms[0], "jwk": new_key.to_json(), "url": url}
    payload = {"account": account_url, "oldKey": old_key.to_json()}
    return signing_input(header, json.dumps(payload, separators=(",", ":")).encode("ascii"))


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)


def _disagree(detail: str) -> NoReturn:
    raise Problem(ProblemType.UNAUTHORIZED, f"{_WHAT} {detail}")
