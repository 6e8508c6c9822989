"""JSON over TLS: one meaning or none, in the body, in the header and in the payload; and sizes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.bad_requests import DROP, Bad, Draft, Holdings, names_of, refuse_then_pass
from tests.e2e.requester import JOSE, check_refusal, fresh_name
from tests.unit.protocol.builders import b64url

pytestmark = pytest.mark.e2e

BODY_LIMIT = 64 * 1024
"""Largest body that is read, in bytes: the default."""

SPOILT: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("member twice", lambda good: b'{"a":1,"a":1,' + good[1:], "'a' twice"),
    ("member twice, spelled apart", lambda good: b'{"a":1,"\\u0061":2,' + good[1:], "'a' twice"),
    ("member twice, deep", lambda good: b'{"a":[{"b":1,"b":1}],' + good[1:], "'b' twice"),
    ("33 levels", lambda good: b'{"a":' + b"[" * 33 + b"]" * 33 + b"," + good[1:], "nested deeper"),
    ("15,000 levels", lambda _: b'{"a":' + b"[" * 15_000 + b"]" * 15_000 + b"}",
     "nested deeper"),
    ("20,000 open brackets", lambda _: b"[" * 20_000, "nested deeper"),
    ("10,000 open objects", lambda _: b'{"a":' * 6_000, "nested deeper"),
    ("number of 5,000 digits", lambda good: b'{"a":' + b"9" * 5_000 + b"," + good[1:],
     "number longer than"),
    ("fraction of 5,000 digits", lambda good: b'{"a":0.' + b"1" * 5_000 + b"," + good[1:],
     "number longer than"),
    ("exponent of 5,000 digits", lambda good: b'{"a":1e' + b"1" * 5_000 + b"," + good[1:],
     "number longer than"),
    ("1e999", lambda good: b'{"a":1e999,' + good[1:], "beyond the range"),
    ("NaN", lambda good: b'{"a":NaN,' + good[1:], "NaN"),
    ("Infinity", lambda good: b'{"a":-Infinity,' + good[1:], "Infinity"),
    ("lone surrogate", lambda good: b'{"a":"\\ud800",' + good[1:], "lone surrogate"),
    ("surrogates the wrong way round", lambda good: b'{"a":"\\udc00\\ud800",' + good[1:],
     "lone surrogate"),
    ("lone surrogate in a name", lambda good: b'{"\\udfff":1,' + good[1:], "lone surrogate"),
    ("NUL in a string", lambda good: b'{"a":"\x00",' + good[1:], "does not parse"),
    ("NUL behind", lambda good: good + b"\x00", "does not parse"),
    ("line break in a string", lambda good: b'{"a":"\n",' + good[1:], "does not parse"),
    ("byte order mark", lambda good: b"\xef\xbb\xbf" + good, "byte order mark"),
    ("UTF-16", lambda good: good.decode().encode("utf-16"), "not UTF-8|does not parse"),
    ("Latin-1", lambda good: b'{"a":"\xe4",' + good[1:], "not UTF-8"),
    ("overlong UTF-8", lambda good: b'{"a":"\xc0\xaf",' + good[1:], "not UTF-8"),
    ("surrogate in UTF-8", lambda good: b'{"a":"\xed\xa0\x80",' + good[1:], "not UTF-8"),
    ("text behind", lambda good: good + b"x", "does not parse"),
    ("object behind", lambda good: good + b"{}", "does not parse"),
    ("comma behind", lambda good: good[:-1] + b",}", "does not parse"),
    ("comment", lambda good: b"/* hello */" + good, "does not parse"),
    ("single quotes", lambda good: good.replace(b'"', b"'"), "does not parse"),
    ("bare names", lambda good: b"{a:1," + good[1:], "does not parse"),
    ("cut short", lambda good: good[:-1], "does not parse"),
    ("cut in a string", lambda good: good[: good.rindex(b'"')], "does not parse"),
    ("string that does not end", lambda _: b'{"' + b'\\"' * 12_000, "does not parse"),
    ("hexadecimal", lambda good: b'{"a":0x10,' + good[1:], "does not parse"),
    ("leading zero", lambda good: b'{"a":007,' + good[1:], "does not parse"),
    ("escape that is none", lambda good: b'{"a":"\\x41",' + good[1:], "does not parse"),
    ("list", lambda good: b"[" + good + b"]", "not an object"),
    ("string", lambda _: b'"hello"', "not an object"),
    ("number", lambda _: b"1", "not an object"),
    ("null", lambda _: b"null", "not an object"),
    ("white space", lambda _: b" \r\n\t", "does not parse"),
]  # fmt: skip
"""(what is wrong, from the good object to the bad text, a pattern of the sentence)."""


def in_body(change: Callable[[bytes], bytes]) -> Callable[[Draft], None]:
    """Return what spoils the JSON of the body."""
    return lambda draft: draft.after_signing.append(lambda jws: change(json.dumps(jws).encode()))


def in_header(change: Callable[[bytes], bytes]) -> Callable[[Draft], None]:
    """Return what spoils the JSON of the protected header, and signs it as it is then."""

    def spoil(draft: Draft) -> None:
        draft.protected = change(json.dumps(draft.protected).encode())

    return spoil


def in_payload(change: Callable[[bytes], bytes]) -> Callable[[Draft], None]:
    """Return what spoils the JSON of the payload, and signs it as it is then."""

    def spoil(draft: Draft) -> None:
        draft.payload = change(draft.payload)

    return spoil


PLACES = (("body", in_body), ("header", in_header), ("payload", in_payload))

TEXTS = [
    Bad(f"{place}: {name}", "new-order", spoil(change), "malformed", says)
    for place, spoil in PLACES
    for name, change, says in SPOILT
]
"""Threats J10: each fault in each place that JSON stands in."""


def payload(value: object) -> Callable[[Draft], None]:
    """Return what asks for something else."""

    def spoil(draft: Draft) -> None:
        draft.payload = value if isinstance(value, bytes) else json.dumps(value).encode()

    return spoil


def names(count: int) -> list[dict[str, str]]:
    """Return so many identifiers."""
    return [{"type": "dns", "value": fresh_name()} for _ in range(count)]


def ordering(**members: object) -> Callable[[Draft], None]:
    """Return what asks for one good name with further members."""
    return lambda draft: payload({"identifiers": names(1), **members})(draft)


def revoking(reason: object) -> Callable[[Draft], None]:
    """Return what revokes the draft's certificate for a reason."""

    def spoil(draft: Draft) -> None:
        draft.payload = json.dumps({**json.loads(draft.payload), "reason": reason}).encode()

    return spoil


def contact(*contacts: object) -> Callable[[Draft], None]:
    """Return what updates the account's contacts."""
    return payload({"contact": list(contacts)})


def larger_than_read(draft: Draft) -> None:
    """Fill the body up to one byte more than is read."""
    draft.after_signing.append(
        lambda jws: (whole := json.dumps(jws).encode()) + b" " * (BODY_LIMIT + 1 - len(whole))
    )


def chunked(size: int) -> Callable[[Draft], None]:
    """Return what sends a body whose size is told chunk by chunk."""

    def spoil(draft: Draft) -> None:
        def frame(jws: dict[str, Any]) -> bytes:
            body = json.dumps(jws).encode()
            body += b" " * (size - len(body))
            parts = [body[start : start + 1000] for start in range(0, len(body), 1000)]
            return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])

        draft.headers.append(("Transfer-Encoding", "chunked"))
        draft.after_signing.append(frame)

    return spoil


SHAPES = [
    Bad("payload empty", "new-order", payload(b""), "malformed", "payload is empty"),
    Bad("payload empty", "finalize", payload(b""), "malformed", "payload is empty"),
    Bad("payload empty", "revoke-cert", payload(b""), "malformed", "payload is empty"),
    Bad("payload empty", "new-account", payload(b""), "malformed", "payload is empty"),
    *(Bad(f"identifiers {name}", "new-order", payload({"identifiers": value} if value is not DROP
          else {}), "malformed", "identifiers|identifier ")
      for name, value in (("missing", DROP), ("null", None), ("empty", []), ("an object", {}),
                          ("text", "a.example"), ("a list of text", ["a.example"]),
                          ("a list of null", [None]), ("without a value", [{"type": "dns"}]),
                          ("without a type", [{"value": "a.example"}]),
                          ("of a number", [{"type": "dns", "value": 1}]),
                          ("of a list", [{"type": "dns", "value": ["a.example"]}]))),
    Bad("101 identifiers", "new-order", lambda d: payload({"identifiers": names(101)})(d),
        "malformed", "101 entries, the limit is 100"),
    Bad("one identifier twice", "new-order", lambda d: payload({"identifiers": names(1) * 2})(d),
        "malformed", "comes twice"),
    *(Bad(f"{name} {what}", "new-order",
          ordering(**{name: value}),
          "malformed", name)
      for name in ("notBefore", "notAfter")
      for what, value in (("empty", ""), ("a number", 1_800_000_000), ("a day", "2030-01-01"),
                          ("without zone", "2030-01-01T00:00:00"),
                          ("no day", "2030-02-30T00:00:00Z"),
                          ("of year 10000", "10000-01-01T00:00:00Z"), ("a list", []))),
    *(Bad(f"profile {what}", "new-order",
          ordering(profile=value), kind,
          "profile")
      for what, value, kind in (("a number", 1, "malformed"), ("empty", "", "malformed"),
                                ("of 65 characters", "a" * 65, "malformed"),
                                ("unknown", "nowhere", "invalidProfile"))),
    *(Bad(f"replaces {what}", "new-order",
          ordering(replaces=value),
          "malformed", "replaces")
      for what, value in (("a number", 1), ("text", "hello"), ("long", "a" * 300 + ".b"))),
    *(Bad(f"csr {what}", "finalize", payload({"csr": value} if value is not DROP else {}),
          "malformed", "csr")
      for what, value in (("missing", DROP), ("null", None), ("empty", ""), ("a number", 1),
                          ("padded", "AAA="), ("plain base64", "+/+/"), ("with a space", "AA AA"))),
    *(Bad(f"certificate {what}", "revoke-cert",
          payload({"certificate": value} if value is not DROP else {}), "malformed", "certificate")
      for what, value in (("missing", DROP), ("null", None), ("empty", ""), ("padded", "AAA="))),
    Bad("certificate nobody's", "revoke-cert", payload({"certificate": "AAAA"}), "unauthorized",
        "revoking wants", status=403),
    *(Bad(f"reason {what}", "revoke-cert",
          revoking(value),
          kind, "reason")
      for what, value, kind in (
          ("text", "1", "malformed"), ("a fraction", 1.5, "malformed"), ("true", True, "malformed"),
          ("null", None, "malformed"), ("7", 7, "badRevocationReason"),
          ("11", 11, "badRevocationReason"), ("-1", -1, "badRevocationReason"),
          ("6, a hold", 6, "badRevocationReason"), ("2, a CA's", 2, "badRevocationReason"))),
    Bad("authorization made valid", "authz", payload({"status": "valid"}), "malformed",
        "only be read or deactivated"),
    Bad("authorization with another wish", "authz", payload({"status": "expired"}), "malformed",
        "only be read or deactivated"),
    Bad("eleven contacts", "account", contact(*["mailto:a@example.com"] * 11), "malformed",
        "11 entries, the limit is 10"),
    Bad("1,000 contacts", "account", contact(*["mailto:a@example.com"] * 1000), "malformed",
        "1000 entries"),
    *(Bad(f"contact is {what}", "account", payload({"contact": value}), "malformed", "contact")
      for what, value in (("text", "mailto:a@example.com"), ("a list of numbers", [1]),
                          ("an object", {}))),
    *(Bad(f"contact {value!r}", "account", contact(value), kind, "contact")
      for value, kind in (
          ("", "invalidContact"), ("a@example.com", "invalidContact"),
          ("tel:+123", "unsupportedContact"), ("https://example.com", "unsupportedContact"),
          ("mailto:", "invalidContact"), ("mailto:a", "invalidContact"),
          ("mailto:a@example.com?bcc=b@example.com", "invalidContact"),
          ("mailto:a@example.com,b@example.com", "invalidContact"),
          ("mailto:a%40example.com", "invalidContact"),
          ("mailto:a@example.com\r\nBcc: b@example.com", "invalidContact"),
          ("mailto:\u202ea@example.com", "invalidContact"),
          ("mailto:ä@example.com", "invalidContact"),
          ("mailto:a@exämple.com", "invalidContact"), ("mailto:a@b@example.com", "invalidContact"),
          ("mailto:<a@example.com>", "invalidContact"), ("mailto:a@localhost", "invalidContact"),
          ("mailto:a@127.0.0.1", "invalidContact"), ("mailto:a b@example.com", "invalidContact"),
          ("mailto:" + "a" * 300 + "@example.com", "invalidContact"))),
    *(Bad(f"{flag} {what}", "new-account", payload({flag: value}), "malformed", flag)
      for flag in ("termsOfServiceAgreed", "onlyReturnExisting")
      for what, value in (("text", "true"), ("1", 1), ("a list", []))),
    *(Bad(f"binding {what}", "new-account", payload({"externalAccountBinding": value}),
          "malformed", "externalAccountBinding")
      for what, value in (("text", "x"), ("a list", []), ("empty", {}),
                          ("of null", {"protected": None, "payload": "", "signature": ""}))),
]  # fmt: skip
"""Payloads that parse and ask for nothing that there is."""

SIZES = [
    *(Bad("body one byte too large", where, larger_than_read, "malformed", "limit of 65536 bytes",
          status=413) for where in ("account", "new-account", "new-order", "revoke-cert")),
    Bad("body of 5 MB", "account", lambda d: d.outer(payload=b64url(bytes(4_000_000))),
        "malformed", "limit of 65536 bytes", status=413),
    Bad("chunks of one byte too many", "account", chunked(BODY_LIMIT + 1), "malformed",
        "limit of 65536 bytes", status=413),
    Bad("chunks of 5 MB", "account", chunked(5_000_000), "malformed", "limit of 65536 bytes",
        status=413),
]  # fmt: skip
"""Bodies past the limit, whether or not they say so beforehand."""

TABLE = [*TEXTS, *SHAPES, *SIZES]


@pytest.mark.parametrize("bad", TABLE, ids=names_of(TABLE))
def test_text_is_refused_and_the_good_one_passes(holdings: Holdings, bad: Bad) -> None:
    """Whatever does not have one meaning has none; nothing of it is kept."""
    refuse_then_pass(holdings, bad)


def test_the_table_is_long_enough() -> None:
    """At least 150 texts are tried."""
    assert len(TABLE) >= 150


def test_the_largest_body_is_read(holdings: Holdings) -> None:
    """A body of exactly the limit passes: white space around it means nothing."""
    draft = holdings.draft("account")
    draft.after_signing.append(
        lambda jws: (whole := json.dumps(jws).encode()) + b" " * (BODY_LIMIT - len(whole))
    )
    assert holdings.send(draft).status == 200


def test_a_body_in_chunks_is_read(holdings: Holdings) -> None:
    """A client may not know its size beforehand."""
    draft = holdings.draft("account")
    chunked(3_000)(draft)
    assert holdings.send(draft).status == 200


def test_a_hundred_identifiers_are_taken(holdings: Holdings) -> None:
    """The twin of the limit."""
    draft = holdings.draft("new-order")
    payload({"identifiers": names(100)})(draft)
    reply = holdings.send(draft)
    assert (reply.status, len(reply.json()["authorizations"])) == (201, 100)


def test_spelling_of_json_is_free_where_its_meaning_is_not(holdings: Holdings) -> None:
    """White space, escapes and any order of members are JSON like any other."""
    draft = holdings.draft("new-order")
    name = fresh_name()
    spelled = (
        '\r\n\t { "notAfter" : null, "identifiers":[{"value":"NAME" , "type":"d\\u006es"}] }\n'
    )
    draft.payload = spelled.replace("NAME", "\\u0068" + name[1:]).encode()
    draft.after_signing.append(
        lambda jws: json.dumps(dict(reversed(jws.items())), indent=4).encode()
    )
    reply = holdings.send(draft)
    assert reply.status == 201, reply.body
    assert reply.json()["identifiers"] == [{"type": "dns", "value": name}]


def test_refusal_escapes_what_it_repeats(holdings: Holdings) -> None:
    """A client's text comes back printable and bounded: it steers no terminal and no log."""
    nasty = "\x1b[31m\u202e\u2028" + "<script>" + "x" * 5000
    draft = holdings.draft("account")
    draft.outer(**{nasty: 1})
    reply = holdings.send(draft)
    document = check_refusal(reply, "malformed", 400, "u001b")
    assert len(document["detail"]) < 300
    assert dict(draft.headers)["Content-Type"] == JOSE
    log = holdings.door.penstock.log_text()
    assert "\x1b" not in log
    assert "\u202e" not in log
