"""What the child does: one piece of work on keys or certificates, then it ends.

Started by ``agents.child`` alone.  Each piece is done by the library ``cryptography`` where it can
be imported and is new enough, else by the program ``openssl``; ``by`` in the work names one of them
for tests.  Keys are written where the work says, with mode 0600 from the first moment, and never go
into an answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agents import crafting_der as der
from agents.crafting_pem import first_key, pem_certificates, to_pem
from agents.crafting_ports import TOKEN_SCHEME, Crafter, CraftFault, KeyCrafter

if TYPE_CHECKING:
    from agents.crafting_token import Token

__all__ = ["KEY_KINDS", "do_work", "main"]

KEY_KINDS: Final = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")
"""Keys that a certificate may be asked for."""

MAX_CHAIN_BYTES: Final = 100_000
"""Largest chain that is read, in bytes of PEM; ten RSA certificates measure 20 kB."""

MAX_CHAIN: Final = 10
"""Most certificates in a chain; public CAs send up to four."""

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Largest file of anchors, keys or PKCS#12 that is read, in bytes."""

Work = Mapping[str, Any]
Answer = dict[str, Any]


def make_identity_request(work: Work, crafter: Crafter) -> Answer:
    """Sign a request without names by the node's identity key in ``path``: EC P-256, made unless
    one is there already."""
    path = str(work["path"])
    if not Path(path).exists():
        _write_new(path, crafter.generate("ec-p256"))
    return make_request({"key": path}, crafter)


def make_request(work: Work, crafter: Crafter) -> Answer:
    """Sign a request by the ``key`` that there is, for ``names``."""
    key, reference = _key_of(work["key"], crafter)
    public = key.spki(reference)
    return {"csr_der": _encode(key.request(reference, _names(work))), **_public(public)}


def make_key_and_request(work: Work, crafter: Crafter) -> Answer:
    """Make a key of ``kind`` in ``path`` (a new file, or an object of a token) and sign a request
    by it.  A file that is there from an earlier try is replaced whole."""
    kind = _kind(work)
    path = str(work["path"])
    if path.startswith(TOKEN_SCHEME):
        made = _token(path).generate_in(path, kind)
        return {**make_request({**work, "key": made}, crafter), "key": made}
    beside = f"{path}.new"
    Path(beside).unlink(missing_ok=True)
    _write_new(beside, crafter.generate(kind))
    answer = make_request({**work, "key": beside}, crafter)
    os.replace(beside, path)
    _sync_folder(path)
    return {**answer, "key": path}


def make_signatures(work: Work, crafter: Crafter) -> Answer:
    """Sign each of ``data`` by the P-256 key in ``key``, as RFC 9421 §3.3.4 wants it: r and s."""
    pem = _read_key(str(work["key"]))
    signatures = []
    for one in work["data"]:
        r, s = der.ecdsa_numbers(crafter.sign(pem, _decode(one)))
        signatures.append(_encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    return {"signatures": signatures}


def find_public(work: Work, crafter: Crafter) -> Answer:
    """Tell the public half of the key that ``key`` names."""
    key, reference = _key_of(work["key"], crafter)
    return _public(key.spki(reference))


def inspect(work: Work, crafter: Crafter) -> Answer:
    """Read the chain in ``pem``, put it in order, and verify it against ``anchors`` at ``at``.

    The first certificate that is no CA's is the leaf; duplicates, roots and what does not belong
    to its chain are left out.  Without anchors (null) the signatures alone are looked at.
    """
    text = str(work["pem"])
    if len(text) > MAX_CHAIN_BYTES:
        raise CraftFault(f"a chain of {len(text)} bytes is past {MAX_CHAIN_BYTES}")
    found = list(dict.fromkeys(pem_certificates(text)))
    if not 0 < len(found) <= MAX_CHAIN:
        raise CraftFault(f"a chain of {len(found)} certificates, expected 1 to {MAX_CHAIN}")
    facts = {one: crafter.facts(one) for one in found}
    leaf = next((one for one in found if not facts[one]["is_ca"]), found[0])
    chain = _in_order(leaf, found, crafter)
    anchors = work.get("anchors")
    if anchors is None:
        why = _why_broken(chain)
        trusted = chain[-1:] if len(chain) > 1 and why is None else []
    else:
        why, trusted = None, pem_certificates(str(anchors))
    links = chain[:-1] if anchors is None and len(chain) > 1 else chain
    if why is None and (anchors is not None or trusted):
        why = crafter.why_unverified(links, trusted, _as_of(work, facts[leaf]))
    why = why or _why_not_authority([facts[one] for one in chain[1:]])
    return {
        "certificates": [facts[one] for one in chain],
        "left_out": len(found) - len(chain),
        "chain_pem": to_pem(chain).decode(),
        "is_verified": why is None and anchors is not None,
        "why": why,
    }


def _as_of(work: Work, leaf: dict[str, Any]) -> int:
    """Return when the chain is looked at: now, or when the leaf begins if that is but a moment
    away, ``early_seconds`` at most."""
    at, begins = int(work["at"]), int(leaf["not_before"])
    return begins if at < begins <= at + int(work.get("early_seconds", 0)) else at


def _in_order(leaf: bytes, found: list[bytes], crafter: Crafter) -> list[bytes]:
    """Return the chain from *leaf* upwards, each signed by the next, without a root."""
    chain, left = [leaf], [one for one in found if one != leaf]
    while True:
        last = chain[-1]
        issuers = [
            one
            for one in left
            if der.subject_of(one) == der.issuer_of(last) and crafter.is_issued_by(last, one)
        ]
        if not issuers:
            return chain
        issuer = min(issuers, key=lambda one: der.issuer_of(one) == der.subject_of(one))
        if der.issuer_of(issuer) == der.subject_of(issuer):
            return chain
        chain.append(issuer)
        left.remove(issuer)


def _why_broken(chain: list[bytes]) -> str | None:
    leaf = chain[0]
    if der.issuer_of(leaf) == der.subject_of(leaf):
        return "the certificate is signed by itself"
    return None


def _why_not_authority(facts: list[dict[str, Any]]) -> str | None:
    for one in facts:
        if not one["is_ca"] or (one["key_usages"] and "keyCertSign" not in one["key_usages"]):
            return "a certificate in the chain is signed by one that is no CA's"
    return None


def make_pkcs12(work: Work, crafter: Crafter) -> Answer:
    """Put ``key`` and ``chain_pem`` into a PKCS#12, opened by ``password``."""
    octets = crafter.pkcs12(
        _read_key(str(work["key"])),
        pem_certificates(str(work["chain_pem"])),
        _password(work),
        str(work.get("name", "penstock")),
    )
    _write_new(str(work["path"]), octets)
    return {"bytes": len(octets)}


def open_pkcs12(work: Work, crafter: Crafter) -> Answer:
    """Take a PKCS#12 apart: its key into ``key_path``, its chain into the answer."""
    key, chain = crafter.open_pkcs12(_read_file(str(work["path"])), _password(work))
    if work.get("key_path") is not None:
        _write_new(str(work["key_path"]), key)
    return {"chain_pem": to_pem(chain).decode(), **_public(crafter.spki(key))}


def forget_key(work: Work, _: Crafter) -> Answer:
    """Destroy the key on a token that ``key`` names by its id."""
    _token(str(work["key"])).forget(str(work["key"]))
    return {}


def seal(work: Work, crafter: Crafter) -> Answer:
    """Envelope ``key`` for whoever holds the key of ``recipient_pem``."""
    recipients = pem_certificates(str(work["recipient_pem"]))
    if len(recipients) != 1:
        raise CraftFault(f"{len(recipients)} recovery certificates where one should be")
    facts = crafter.facts(recipients[0])
    if facts["key_usages"] and "keyEncipherment" not in facts["key_usages"]:
        raise CraftFault("the recovery certificate's key usage does not allow keyEncipherment")
    sealed = crafter.seal(_read_key(str(work["key"])), recipients[0])
    return {"sealed": _encode(sealed), "recipient": facts["fingerprint"]}


def make_alpn_certificate(work: Work, crafter: Crafter) -> Answer:
    """Make the certificate that answers tls-alpn-01 for ``identifier`` (RFC 8737 §3), with a key
    that serves for nothing else and is therefore the one that an answer may hold."""
    key = crafter.generate("ec-p256")
    begin = int(work["at"]) - 86_400
    body = der.self_signed_body(
        crafter.spki(key),
        "ec-p256",
        [_checked_name(str(work["identifier"]))],
        window=(begin, begin + 8 * 86_400),
        acme=_decode(work["digest"]),
    )
    certificate = der.signed(body, "ec-p256", crafter.sign(key, body))
    return {"certificate_pem": to_pem([certificate]).decode(), "key_pem": key.decode()}


def do_several(work: Work, crafter: Crafter) -> Answer:
    """Do each of ``works``; a fault of one is its answer and stops no other."""
    return {"answers": [_try(one, crafter) for one in work["works"]]}


OPERATIONS: Final[Mapping[str, Callable[[Work, Crafter], Answer]]] = {
    "identity-request": make_identity_request,
    "csr": make_request,
    "key-and-csr": make_key_and_request,
    "sign": make_signatures,
    "public": find_public,
    "inspect": inspect,
    "pkcs12": make_pkcs12,
    "open-pkcs12": open_pkcs12,
    "seal": seal,
    "forget-key": forget_key,
    "alpn-certificate": make_alpn_certificate,
    "several": do_several,
}
"""All that there is to do, by the word in ``do``."""


def do_work(work: Work) -> Answer:
    """Do one piece of work; the answer has ``fault`` where it cannot be done."""
    try:
        crafter = choose_crafter(work.get("by"))
    except CraftFault as fault:
        return {"fault": str(fault)}
    return _try(work, crafter)


def _try(work: Work, crafter: Crafter) -> Answer:
    operation = OPERATIONS.get(str(work.get("do")))
    if operation is None:
        return {"fault": f"{str(work.get('do'))[:40]!r} is nothing that the child can do"}
    try:
        return operation(work, crafter)
    except CraftFault as fault:
        return {"fault": str(fault)}
    except (der.DerFault, KeyError) as error:
        return {"fault": f"{work['do']}: {error}"}
    except OSError as error:
        return {"fault": f"{work['do']}: {error.filename}: {error.strerror}"}


def choose_crafter(by: object = None) -> Crafter:
    """Return who does the work: the library where there is one that can, else the program."""
    if by != "openssl":
        try:
            from agents.crafting_library import ByLibrary
        except ImportError:
            if by == "cryptography":
                raise CraftFault("the library cryptography is not there, or too old") from None
        else:
            return ByLibrary()
    from agents.crafting_openssl import ByOpenssl

    return ByOpenssl()


# ------------------------------------------------------------------------------------- parts


def _key_of(reference: object, crafter: Crafter) -> tuple[KeyCrafter | Token, Any]:
    """Return who works with the key that *reference* names, and what it wants to be handed."""
    text = str(reference)
    if text.startswith(TOKEN_SCHEME):
        return _token(text), text
    return crafter, _read_key(text)


def _token(reference: str) -> Token:
    from agents.crafting_token import Token  # few have one, and each child starts anew

    return Token.open(reference)


def _kind(work: Work) -> str:
    kind = str(work["kind"])
    if kind not in KEY_KINDS:
        raise CraftFault(f"key kind {kind[:20]!r} is none of {', '.join(KEY_KINDS)}")
    return kind


def _names(work: Work) -> list[str]:
    return [_checked_name(str(name)) for name in work.get("names", ())]


def _checked_name(name: str) -> str:
    if not name or not name.isascii() or not name.isprintable() or " " in name or len(name) > 255:
        raise CraftFault(f"name {name[:60]!r} is none that a certificate can have")
    return name


def _password(work: Work) -> bytes:
    if work.get("password"):
        return str(work["password"]).encode()
    first, _, _ = _read_file(str(work["password_file"])).partition(b"\n")
    if not first:
        raise CraftFault(f"{work['password_file']}: no password in its first line")
    return first.rstrip(b"\r")


def _read_key(path: str) -> bytes:
    return first_key(_read_file(path))


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        octets = file.read(MAX_FILE_BYTES + 1)
    if len(octets) > MAX_FILE_BYTES:
        raise CraftFault(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return octets


def _write_new(path: str, octets: bytes) -> None:
    """Write a file that was not there, readable by its owner alone from the beginning."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(fd)
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _public(spki_der: bytes) -> Answer:
    return {
        "spki_sha256": hashlib.sha256(spki_der).hexdigest(),
        "spki_der": _encode(spki_der),
        "key_kind": der.key_kind_of(spki_der),
    }


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decode(text: object) -> bytes:
    padded = str(text) + "=" * (-len(str(text)) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def main() -> int:
    """Read the work, do it, write the answer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    answer = do_work(json.load(sys.stdin))
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
