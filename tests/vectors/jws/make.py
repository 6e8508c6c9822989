"""Makes jws_requests.json: requests for the JWS front door, good ones and bad ones.

Each bad one differs in one thing from the good one that it names as its twin.  Everything is
drawn from fixed keys by deterministic signatures, so that the file can be made anew and compared:

    python -m tests.vectors.jws.make > tests/vectors/jws_requests.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.protocol.builders import b64url, jwk_json
from tests.vectors.jws.drafts import ACCOUNTS, CURVES, NONCE, Case, Draft, key_of, kid_of, signature
from tests.vectors.jws.forms import addresses, algorithms, encodings, envelopes, headers
from tests.vectors.jws.keys import ec_keys, jwks, okp_keys, rsa_keys
from tests.vectors.jws.signatures import ecdsa, ed25519_signatures, rsa_signatures


def groups() -> Iterator[tuple[str, Callable[[], Draft], list[Case]]]:
    """Yield name, good request and cases of each group."""

    def account(alg: str) -> Callable[[], Draft]:
        return lambda: Draft.by_account(alg)

    def key(alg: str) -> Callable[[], Draft]:
        return lambda: Draft.by_key(alg)

    yield "envelope", account("ES256"), list(envelopes())
    yield "encoding", account("ES256"), list(encodings())
    yield "header", account("ES256"), list(headers())
    yield "address", account("ES256"), list(addresses())
    yield "algorithm", account("ES256"), list(algorithms())
    for alg in CURVES:
        yield f"signature-{alg}", account(alg), list(ecdsa(alg))
    yield "signature-RS256", account("RS256"), list(rsa_signatures())
    yield "signature-EdDSA", account("EdDSA"), list(ed25519_signatures())
    yield "jwk", key("ES256"), list(jwks())
    for alg in CURVES:
        yield f"jwk-{alg}", key(alg), list(ec_keys(alg))
    yield "jwk-RS256", key("RS256"), list(rsa_keys())
    yield "jwk-EdDSA", key("EdDSA"), list(okp_keys())


def malleable(alg: str) -> Draft:
    """Return a good request under the other signature that the same numbers give."""
    _, _, size, order = CURVES[alg]
    draft = Draft.by_account(alg)
    signature(
        lambda octets: (
            octets[:size] + (order - int.from_bytes(octets[size:], "big")).to_bytes(size, "big")
        )
    )(draft)
    return draft


def vector(draft: Draft, **told: Any) -> dict[str, Any]:
    """Return one vector: its octets as text where they are UTF-8."""
    octets = draft.body()
    made: dict[str, Any] = {**told, "url": draft.url}
    try:
        made["body"] = octets.decode("utf-8")
    except UnicodeDecodeError:
        made["body_b64url"] = b64url(octets)
    return made


def make() -> dict[str, Any]:
    """Return the whole file."""
    tests: list[dict[str, Any]] = []
    for group, good, cases in groups():
        twin = f"{group}: good"
        tests.append(vector(good(), id=twin, flag="Good", result="valid"))
        for case in cases:
            draft = good()
            case.spoil(draft)
            told = {"result": "invalid", "type": case.type, "status": case.status, "twin": twin}
            tests.append(vector(draft, id=f"{group}: {case.comment}", flag=case.flag, **told))
    for alg in CURVES:
        told = {"flag": "Malleable", "result": "valid"}
        tests.append(vector(malleable(alg), id=f"signature-{alg}: the order less s", **told))
    return {
        "origin": "made for this project by make_jws_requests.py, after RFC 8555 §6, RFC 7515, "
        "RFC 7518, RFC 8032 and RFC 8037",
        "nonce": NONCE,
        "accounts": [{"kid": kid_of(alg), "jwk": jwk_json(key_of(alg))} for alg in ACCOUNTS],
        "bad": sum(one["result"] == "invalid" for one in tests),
        "tests": tests,
    }


def main() -> None:
    """Write the file to standard output."""
    json.dump(make(), sys.stdout, indent=1, ensure_ascii=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
