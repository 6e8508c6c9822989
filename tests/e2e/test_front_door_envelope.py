"""The envelope of a request over TLS: its form, who speaks in it, and the HTTP around it."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.bad_requests import DROP, READABLE, Bad, Draft, Holdings, names_of, refuse_then_pass
from tests.e2e.requester import JOSE, check_refusal
from tests.unit.protocol.builders import b64url, jwk_json

pytestmark = pytest.mark.e2e

BY_ACCOUNT = (*READABLE, "new-order", "finalize")
"""Resources that only an account may ask for."""


def header(**changes: object) -> Callable[[Draft], None]:
    """Return what changes the protected header."""
    return lambda draft: draft.header(**changes)


def outer(**changes: object) -> Callable[[Draft], None]:
    """Return what changes the members of the JWS."""
    return lambda draft: draft.outer(**changes)


def octets(make: Callable[[dict[str, Any]], Any]) -> Callable[[Draft], None]:
    """Return what makes another body of the signed members."""
    return lambda draft: draft.after_signing.append(make)


def protected(text: bytes) -> Callable[[Draft], None]:
    """Return what puts other octets in the place of the protected header."""

    def spoil(draft: Draft) -> None:
        draft.protected = text

    return spoil


def respelled(name: str, spell: Callable[[str], str]) -> Callable[[Draft], None]:
    """Return what spells one member of the JWS in another way."""
    return octets(lambda jws: {**jws, name: spell(jws[name])})


def embedded(draft: Draft) -> None:
    """Speak by key where an account is asked for."""
    draft.header(kid=DROP, jwk=jwk_json(draft.key))


def both(draft: Draft) -> None:
    """Speak by key and by account at once."""
    draft.header(kid=draft.holdings.owner.kid, jwk=jwk_json(draft.key))


def sent_as(**headers: str) -> Callable[[Draft], None]:
    """Return what changes headers of HTTP; "" takes one away."""

    def spoil(draft: Draft) -> None:
        kept = dict(draft.headers)
        kept |= {name.replace("_", "-"): value for name, value in headers.items()}
        draft.headers = [(name, value) for name, value in kept.items() if value]

    return spoil


def by(method: str) -> Callable[[Draft], None]:
    """Return what sends the request by another method."""

    def spoil(draft: Draft) -> None:
        draft.method = method

    return spoil


def compressed(draft: Draft) -> None:
    """Send the body compressed, and say so."""
    draft.after_signing.append(lambda jws: gzip.compress(json.dumps(jws).encode()))
    draft.headers.append(("Content-Encoding", "gzip"))


def a_bit_off(text: str) -> str:
    """Return base64url of the same length whose last octet differs."""
    return text[:-2] + ("AA" if text[-2:] != "AA" else "BA")


def unused_bits(text: str) -> str:
    """Return the same octets in base64url with an unused bit set: 64 octets end in four."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1]


WHO = [
    *(Bad("key in place of account", where, embedded, "malformed", "expected kid")
      for where in BY_ACCOUNT),
    *(Bad("key beside account", where, both, "malformed", "both or neither")
      for where in (*BY_ACCOUNT, "new-account", "revoke-cert")),
    *(Bad("neither", where, header(kid=DROP, jwk=DROP), "malformed", "both or neither")
      for where in (*BY_ACCOUNT, "new-account", "revoke-cert")),
    Bad("account in place of key", "new-account",
        lambda d: d.header(jwk=DROP, kid=d.holdings.owner.kid), "malformed", "expected jwk"),
    Bad("kid is null", "account", header(kid=None), "malformed", "no kid"),
    Bad("kid is a list", "account", lambda d: d.header(kid=[d.holdings.owner.kid]), "malformed",
        "no kid"),
]  # fmt: skip
"""RFC 8555 §6.2: an embedded key opens accounts and speaks for its own certificate; an account
speaks everywhere else."""

FORM = [
    Bad("unknown critical header", "account", header(crit=["exp"], exp=1), "malformed", "'crit'"),
    Bad("empty crit", "account", header(crit=[]), "malformed", "'crit'"),
    Bad("b64 false", "account", header(b64=False, crit=["b64"]), "malformed", "'(b64|crit)'"),
    Bad("b64 true", "account", header(b64=True), "malformed", "'b64'"),
    Bad("compression", "account", header(zip="DEF"), "malformed", "'zip'"),
    Bad("key by reference", "account", header(jku="https://evil.example/k"), "malformed", "'jku'"),
    Bad("certificate by reference", "account", header(x5u="https://evil.example/c"), "malformed",
        "'x5u'"),
    Bad("certificate chain", "account", header(x5c=["MIIB"]), "malformed", "'x5c'"),
    Bad("type header", "account", header(typ="JWT"), "malformed", "'typ'"),
    Bad("unprotected header", "account", outer(header={"alg": "ES256"}), "malformed", "'header'"),
    Bad("empty unprotected header", "account", outer(header={}), "malformed", "'header'"),
    Bad("general form", "account",
        octets(lambda j: {"payload": j["payload"], "signatures": [
            {"protected": j["protected"], "signature": j["signature"]}]}),
        "malformed", "'signatures'"),
    Bad("general form beside flattened", "account", outer(signatures=[]), "malformed",
        "'signatures'"),
    Bad("another member", "account", outer(comment="hello"), "malformed", "'comment'"),
    Bad("compact form", "account",
        octets(lambda j: ".".join((j["protected"], j["payload"], j["signature"])).encode()),
        "malformed", "does not parse"),
    Bad("compact form as a string", "account",
        octets(lambda j: ".".join((j["protected"], j["payload"], j["signature"]))),
        "malformed", "not an object"),
    Bad("list of requests", "account", octets(lambda j: [j, j]), "malformed", "not an object"),
    *(Bad(f"no {name}", "account", outer(**{name: DROP}), "malformed", f"'{name}'")
      for name in ("protected", "payload", "signature")),
    *(Bad(f"{name} is null", "account", outer(**{name: None}), "malformed", f"'{name}'")
      for name in ("protected", "payload", "signature")),
    *(Bad(f"{name} is an object", "account", outer(**{name: {}}), "malformed", f"'{name}'")
      for name in ("protected", "payload", "signature")),
    *(Bad(f"{name} is a number", "account", outer(**{name: 1}), "malformed", f"'{name}'")
      for name in ("protected", "payload", "signature")),
    *(Bad(f"{name} is padded", "new-order", respelled(name, lambda t: t + "=" * (-len(t) % 4 or 4)),
          "malformed", f"'{name}' is padded") for name in ("protected", "payload", "signature")),
    *(Bad(f"{name} has a line break", "new-order", respelled(name, lambda t: t[:8] + "\n" + t[8:]),
          "malformed", f"'{name}' is not base64url") for name in ("protected", "payload")),
    Bad("signature in plain base64", "account", respelled("signature", lambda t: "+/" + t[2:]),
        "malformed", "'signature' is not base64url"),
    Bad("signature of one character", "account", outer(signature="A"), "malformed", "'signature'"),
    Bad("signature empty", "account", outer(signature=""), "malformed", "empty signature"),
    Bad("signature with unused bits", "account", respelled("signature", unused_bits), "malformed",
        "canonical"),
    Bad("signature flipped", "account", respelled("signature", a_bit_off), "malformed",
        "does not verify"),
    Bad("signature of zeros", "account", outer(signature=b64url(bytes(64))), "malformed",
        "does not verify"),
    Bad("signature of another payload", "new-order", outer(payload=b64url(b"{}")), "malformed",
        "does not verify"),
    Bad("payload detached", "new-order", outer(payload=""), "malformed", "does not verify"),
    Bad("header swapped", "account",
        lambda d: d.outer(protected=b64url(json.dumps({**d.protected, "x": 1}).encode())),
        "malformed", "'x'"),
    Bad("header empty", "account", protected(b""), "malformed", "protected header"),
    Bad("header is no object", "account", protected(b"[]"), "malformed", "not an object"),
    Bad("header is an empty object", "account", protected(b"{}"), "malformed",
        "both or neither"),
    Bad("header is text", "account", protected(b"alg: ES256"), "malformed", "does not parse"),
    Bad("many dots", "account", octets(lambda _: b"." * 60_000), "malformed", "does not parse"),
    Bad("body empty", "account", octets(lambda _: b""), "malformed", "does not parse"),
]  # fmt: skip
"""RFC 8555 §6.2: the flattened form, nothing unprotected, nothing detached."""

HTTP = [
    *(Bad(f"sent as {kind or 'nothing'}", where, sent_as(Content_Type=kind), "malformed",
          "content type", status=415)
      for where in ("account", "new-account", "revoke-cert")
      for kind in ("", "application/json", "application/jose", "text/plain")),
    Bad("compressed", "account", compressed, "malformed", "compressed", status=415),
    *(Bad(f"by {method}", where, by(method), "malformed", "POST", status=405)
      for where in ("account", "order", "authz", "certificate", "new-order", "finalize")
      for method in ("GET", "PUT", "DELETE")),
]  # fmt: skip
"""RFC 8555 §6.2 and §6.3: one content type, and POST alone."""

TABLE = [*WHO, *FORM, *HTTP]


@pytest.mark.parametrize("bad", TABLE, ids=names_of(TABLE))
def test_request_is_refused_and_the_good_one_passes(holdings: Holdings, bad: Bad) -> None:
    """The refusal says what was expected; its nonce carries the same request done right."""
    refuse_then_pass(holdings, bad)


def test_the_table_is_long_enough() -> None:
    """At least 90 envelopes are tried."""
    assert len(TABLE) >= 90


@pytest.mark.parametrize("kind", [JOSE, f"{JOSE}; charset=utf-8", JOSE.upper()])
def test_content_type_is_read_as_one(holdings: Holdings, kind: str) -> None:
    """Parameters and case are no part of a media type (RFC 9110 §8.3.1)."""
    draft = holdings.draft("account")
    draft.headers = [("Content-Type", kind)]
    assert holdings.send(draft).status == 200


def test_unknown_path_is_a_problem_as_well(holdings: Holdings) -> None:
    """What is no resource of ours is 404 with a problem document and a nonce that works."""
    for path in (
        *("/", "/acme", "/acme/default", "/acme/nowhere/directory", "/acme/directory/", "/.env"),
        *("/acme/default/key-changes", "/acme/default/account/", "/acme/default/order/.."),
        *("/acme/default/order/" + "a" * 65, "/metrics", "/v1/command"),
    ):
        reply = holdings.door.wire.send("GET", path)
        check_refusal(reply, "malformed", 404, "no (such resource|community)")
        assert holdings.owner.post(holdings.urls["account"], nonce=reply.nonce).status == 200
