"""What is wrong with the form of a request, its header, its addresses and its algorithm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.protocol.builders import jwk_json
from tests.vectors.jws.drafts import (
    NONCE,
    REGISTER,
    URL,
    Case,
    Draft,
    body,
    compact,
    general,
    header,
    header_text,
    kid_of,
    mac_under_public_key,
    members,
    text_of,
    unprotected,
    without,
)


def envelopes() -> Iterator[Case]:
    """Yield what is wrong with the form of the JWS (RFC 8555 §6.2)."""
    for what, write in {
        "empty body": lambda _: b"",
        "white space alone": lambda _: b" \r\n\t",
        "null": lambda _: b"null",
        "a number": lambda _: b"1",
        "a string": lambda _: b'"eyJ"',
        "an array": lambda jws: json.dumps([jws]).encode(),
        "an empty object": lambda _: b"{}",
        "no JSON": lambda _: b"protected=e30&payload=e30",
        "text behind it": lambda jws: json.dumps(jws).encode() + b"x",
        "a second object behind it": lambda jws: json.dumps(jws).encode() * 2,
        "cut off": lambda jws: json.dumps(jws).encode()[:-1],
        "a byte order mark": lambda jws: b"\xef\xbb\xbf" + json.dumps(jws).encode(),
        "UTF-16": lambda jws: json.dumps(jws).encode("utf-16"),
        "an octet that is not UTF-8": lambda jws: (
            json.dumps(jws).encode().replace(b'"payload"', b'"payl\xffad"')
        ),
        "NUL before it": lambda jws: b"\x00" + json.dumps(jws).encode(),
        "a comment": lambda jws: b"/* */" + json.dumps(jws).encode(),
        "a trailing comma": lambda jws: json.dumps(jws).encode()[:-1] + b",}",
        "single quotes": lambda jws: json.dumps(jws).replace('"', "'").encode(),
    }.items():
        yield Case(f"body: {what}", "Json", body(write))
    yield Case("compact form", "Serialization", body(compact))
    for count in (0, 1, 2):
        yield Case(f"general form, {count} signatures", "Serialization", body(general(count)))
    yield Case("flattened and general at once", "Serialization", body(general(1, beside=True)))
    yield Case("empty signatures beside signature", "Serialization", members(signatures=[]))
    for names in (("alg",), ("nonce",), ("url",), ("kid",), ("alg", "nonce", "url", "kid")):
        said = " and ".join(names)
        yield Case(f"unprotected header with {said}", "Unprotected", unprotected(*names))
    yield Case("unprotected header, empty", "Unprotected", members(header={}))
    yield Case("unprotected header, null", "Unprotected", members(header="null"))
    for name in ("protected", "payload", "signature"):
        yield Case(f"no {name}", "Members", members(**{name: None}))
        yield Case(f"{name} null", "Members", body(_json_null(name)))
        yield Case(f"{name} an object", "Members", members(**{name: {"a": 1}}))
        yield Case(f"{name} a list", "Members", members(**{name: ["AAAA"]}))
        yield Case(f"{name} a number", "Members", members(**{name: 1}))
        yield Case(f"{name} true", "Members", members(**{name: True}))
        yield Case(f"{name} twice", "DuplicateMember", body(_twice(name)))
        yield Case(
            f"{name} twice by an escape", "DuplicateMember", body(_twice(name, escaped=True))
        )
        yield Case(f"{name} in upper case", "Members", body(_renamed(name, name.upper())))
    for name, value in (("comment", "x"), ("b64", False), ("crit", []), ("unprotected", {}),
                        ("ciphertext", "AAAA"), ("", "x"), ("__proto__", {})):  # fmt: skip
        yield Case(f"a further member '{name}'", "Members", members(**{name: value}))
    yield Case("protected empty", "Members", members(protected=""))
    yield Case("signature empty", "Members", members(signature=""))


def _json_null(name: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda jws: json.dumps({**jws, name: None}).encode()


def _twice(name: str, *, escaped: bool = False) -> Callable[[dict[str, Any]], bytes]:
    second = f"\\u{ord(name[0]):04x}{name[1:]}" if escaped else name
    return lambda jws: (json.dumps(jws)[:-1] + f', "{second}": "{jws[name]}"}}').encode()


def _renamed(name: str, other: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda jws: json.dumps(
        {(other if key == name else key): value for key, value in jws.items()}
    ).encode()


def encodings() -> Iterator[Case]:
    """Yield texts that a lenient base64url reader takes for the right octets (RFC 8555 §6.1)."""
    ways: dict[str, Callable[[str], str]] = {
        "padded": lambda text: text + "=" * (-len(text) % 4 or 4),
        "with three '='": lambda text: text + "===",
        "a newline at its end": lambda text: text + "\n",
        "a newline within": lambda text: text[:4] + "\n" + text[4:],
        "a space before": lambda text: " " + text,
        "a space within": lambda text: text[:8] + " " + text[8:],
        "a tab within": lambda text: text[:8] + "\t" + text[8:],
        "a dot within": lambda text: text[:8] + "." + text[8:],
        "a character outside the alphabet": lambda text: text[:8] + "*" + text[9:],
        "a NUL at its end": lambda text: text + "\x00",
        "a wide character": lambda text: "\uff21" + text[1:],
        "a percent escape": lambda text: "%41" + text[1:],
        "one character more": lambda text: text + "A" * ((1 - len(text)) % 4 or 4),
    }
    for name in ("protected", "payload", "signature"):
        for what, way in ways.items():
            yield Case(f"{name}: {what}", "Base64", text_of(name, way))
    yield Case("payload in the other alphabet", "Base64", _other_alphabet)
    yield Case("payload with unused bits set", "Base64", _unused_bits)
    yield Case("signature with unused bits set", "Base64", text_of("signature", _set_unused_bit))


def _other_alphabet(draft: Draft) -> None:
    draft.payload = b'{"a":"\xc3\xbf\xc3\xbf\xc3\xbe>>>???"}'
    draft.on_members.append(
        lambda jws: {**jws, "payload": jws["payload"].replace("-", "+").replace("_", "/")}
    )


def _set_unused_bit(text: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1]


def _unused_bits(draft: Draft) -> None:
    draft.payload = b'{"a":1}'
    draft.on_members.append(lambda jws: {**jws, "payload": _set_unused_bit(jws["payload"])})


def headers() -> Iterator[Case]:
    """Yield what is wrong with the protected header, though it is signed as it stands."""
    for name, value in (
        ("crit", ["exp"]), ("crit", []), ("crit", "b64"), ("b64", False), ("b64", True),
        ("typ", "JOSE+JSON"), ("cty", "json"), ("zip", "DEF"), ("enc", "A256GCM"),
        ("jku", "https://evil.example/keys"), ("x5u", "https://evil.example/x"),
        ("x5c", ["AAAA"]), ("x5t", "AAAA"), ("x5t#S256", "AAAA"), ("epk", {}), ("iat", 1),
        ("exp", 9999999999), ("newNonce", "AAAA"), ("URL", URL), ("Nonce", NONCE), ("", 1),
    ):  # fmt: skip
        yield Case(
            f"header member {name!r}: {json.dumps(value)}", "HeaderMember", header(**{name: value})
        )
    yield Case("crit that lists b64, payload not encoded", "B64", header(crit=["b64"], b64=False))
    for name in ("alg", "url", "kid"):
        yield Case(f"no {name}", "HeaderMember", without(name))
    yield Case("no nonce", "Nonce", without("nonce"), "badNonce")
    values: tuple[Any, ...] = (None, 1, True, [], {}, ["ES256"])
    for name in ("alg", "url", "kid"):
        for value in values:
            yield Case(f"{name}: {json.dumps(value)}", "HeaderType", header(**{name: value}))
    texts = ("", "\t", f"{URL} ", f"{URL}\r\nX: y", f"{URL}\x00", f"{URL}\u00e4", "a" * 3000)
    for name in ("url", "kid"):
        for text in texts:
            shown = json.dumps(text.removeprefix(URL))[:40]
            yield Case(f"{name}: text with {shown}", "HeaderText", header(**{name: text}))
    nonces: tuple[Any, ...] = (7, [], {}, True, "A" * 60_000, "AAA=", "+/+/", "AAAA\n", "AA AA",
                               "AAAA.BBBB", "\u00e4")  # fmt: skip
    for value in nonces:
        yield Case(f"nonce: {json.dumps(value)[:40]}", "Nonce", header(nonce=value))
    for absent in (None, ""):
        yield Case(f"nonce: {json.dumps(absent)}", "Nonce", header(nonce=absent), "badNonce")
    yield Case("nonce that nobody issued", "Nonce", header(nonce="bmV2ZXIgaXNzdWVk"), "badNonce")
    yield Case(
        "both jwk and kid", "KeyChoice", lambda draft: draft.header.update(jwk=jwk_json(draft.key))
    )
    spellings: dict[str, Callable[[str], str | bytes]] = {
        "not JSON": lambda _: "hello",
        "an array": lambda text: f"[{text}]",
        "null": lambda _: "null",
        "a byte order mark": lambda text: "\ufeff" + text,
        "UTF-16": lambda text: text.encode("utf-16"),
        "text behind": lambda text: text + "x",
        "a second object": lambda text: text + text,
        "alg twice": lambda text: text[:-1] + ',"alg":"none"}',
        "alg twice, the good one last": lambda text: '{"alg":"none",' + text[1:],
        "nonce twice": lambda text: text[:-1] + ',"nonce":"AAAA"}',
        "url twice": lambda text: text[:-1] + ',"url":"https://evil.example/"}',
        "kid twice by an escape": lambda text: text[:-1] + ',"\\u006bid":"x"}',
        "NaN": lambda text: text[:-1] + ',"x":NaN}',
        "nested too deep": lambda text: text[:-1] + ',"x":' + "[" * 40 + "]" * 40 + "}",
        "a number without end": lambda text: text[:-1] + ',"x":' + "9" * 5000 + "}",
        "a lone surrogate": lambda text: text[:-1] + ',"x":"\\ud800"}',
        "an octet that is not UTF-8": lambda text: text.encode()[:-1] + b',"x":"\xff"}',
        "an overlong encoding": lambda text: text.encode()[:-1] + b',"x":"\xc0\xaf"}',
        "a trailing comma": lambda text: text[:-1] + ",}",
        "a comment": lambda text: text[:-1] + "/**/}",
    }
    for what, change in spellings.items():
        yield Case(f"protected header: {what}", "HeaderJson", header_text(change))


def addresses() -> Iterator[Case]:
    """Yield requests for another URL, and accounts under another name (RFC 8555 §6.2, §6.4)."""
    for url in (
        URL + "/", URL + "?", URL + "?a=b", URL + "#x", URL.replace("new-order", "New-Order"),
        URL.replace("new-order", "new%2Dorder"), URL.replace("http:", "https:"),
        URL.replace("acme.corp.example", "ACME.corp.example"),
        URL.replace("acme.corp.example", "acme.corp.example:80"),
        URL.replace("acme.corp.example", "acme.corp.example."),
        URL.replace("acme.corp.example", "user@acme.corp.example"),
        URL.replace("default", "lab"), URL.replace("/acme/", "/acme/./"),
        URL.replace("/acme/", "//acme/"), REGISTER, "/acme/default/new-order",
    ):  # fmt: skip
        yield Case(f"signed for {url}", "Url", header(url=url), "unauthorized", 403)
    good = kid_of("ES256")
    for kid in (
        "acct1", good + "/", good + "?x", good + "#x", good.replace("acct1", "acct99"),
        good.replace("acct1", "ACCT1"), good.replace("acct1", "%61cct1"),
        good.replace("default", "lab"), good.replace("http:", "https:"),
        good.replace("acme.corp.example", "evil.example"), good.replace("/account/", "/order/"),
        good.replace("/account/", "/account/../account/"),
    ):  # fmt: skip
        yield Case(f"kid {kid}", "Kid", header(kid=kid), "accountDoesNotExist")
    others = {"ES384": "badSignatureAlgorithm", "RS256": "badSignatureAlgorithm"}
    for alg, kind in others.items():
        yield Case(
            f"kid of the account that has an {alg} key", "Kid", header(kid=kid_of(alg)), kind
        )


def algorithms() -> Iterator[Case]:
    """Yield algorithms that are not taken, or not by this key (RFC 8555 §6.2)."""
    bad = "badSignatureAlgorithm"
    for alg in (
        "", "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "es256", "ES256 ", " ES256",
        "ES256\x00", "ES256K", "ESP256", "RS1", "RS384", "RS512", "PS256", "PS384", "PS512",
        "Ed448", "ML-DSA-44", "ML-DSA-65", "dir", "A128KW", "SHA256", "E" * 5000,
    ):  # fmt: skip
        yield Case(f"alg {json.dumps(alg)[:20]}", "Algorithm", header(alg=alg), bad)
    for alg in ("ES384", "ES512", "EdDSA", "Ed25519", "RS256"):
        yield Case(f"{alg} under a P-256 key", "AlgorithmOfAnotherKey", header(alg=alg), bad)
    yield Case("none, and no signature", "Algorithm", _none, "malformed")

    def mac(draft: Draft) -> None:
        draft.header["alg"] = "HS256"
        draft.signer = lambda message: mac_under_public_key(draft, message)

    yield Case("HS256 keyed with the public key", "Algorithm", mac, bad)


def _none(draft: Draft) -> None:
    draft.header["alg"] = "none"
    draft.on_members.append(lambda jws: {**jws, "signature": ""})
