"""The work of the child, done by the ``openssl`` program, for hosts without the library.

Keys and passwords reach the program through memory files that only it inherits: never by an
argument, which every user of a host can read, and never by a file on disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from agents import crafting_der as der
from agents.crafting_pem import first_key, pem_certificates, to_pem
from agents.crafting_ports import CraftFault

__all__ = ["ByOpenssl"]

PROGRAM_SECONDS: Final = 100
"""How long the program may take, in seconds; under the limit of the child itself."""

_CURVES: Final = {"ec-p256": "P-256", "ec-p384": "P-384"}

_TRUST: Final = ("-no-CAfile", "-no-CApath", "-no-CAstore", "-partial_chain", "-auth_level", "2")
"""How ``openssl verify`` is asked: never by the system's store; any anchor that is given is one;
nothing weaker than 112 bits."""


class ByOpenssl:
    """Every operation on a key or a certificate, by the program."""

    name = "openssl"

    def __init__(self) -> None:
        found = shutil.which("openssl")
        if found is None:
            raise CraftFault("neither the library cryptography nor the program openssl is there")
        self._program = found

    def generate(self, kind: str) -> bytes:
        """Return a new private key in PEM."""
        if kind in _CURVES:
            options = ["EC", "-pkeyopt", f"ec_paramgen_curve:{_CURVES[kind]}"]
            options += ["-pkeyopt", "ec_param_enc:named_curve"]
        else:
            options = ["RSA", "-pkeyopt", f"rsa_keygen_bits:{int(kind.removeprefix('rsa-'))}"]
        return self._run("the key", "genpkey", "-algorithm", *options)

    def spki(self, key_pem: bytes) -> bytes:
        """Return the public half in DER."""
        key = first_key(key_pem)
        with _memory(key) as path:
            public = self._run(
                "the key", "pkey", "-in", path, "-passin", "pass:", "-pubout", "-outform", "DER"
            )
        kind = _kind(public)
        if not kind.startswith(("ec-", "rsa-")):
            raise CraftFault("the key is neither an EC nor an RSA key")
        return public

    def sign(self, key_pem: bytes, message: bytes) -> bytes:
        """Return a signature over *message*, in the form that X.509 has it."""
        return self._sign(key_pem, _kind(self.spki(key_pem)), message)

    def request(self, key_pem: bytes, names: Sequence[str]) -> bytes:
        """Return a certificate request in DER, with an empty subject."""
        public = self.spki(key_pem)
        kind = _kind(public)
        body = der.request_body(public, names)
        return der.signed(body, kind, self._sign(key_pem, kind, body))

    def facts(self, certificate_der: bytes) -> dict[str, Any]:
        """Return what a certificate says of itself."""
        try:
            return der.certificate_facts(certificate_der)
        except (der.DerFault, ValueError, IndexError) as error:
            raise CraftFault(f"a certificate cannot be read: {error}") from None

    def is_issued_by(self, certificate_der: bytes, issuer_der: bytes) -> bool:
        """Tell whether the issuer's key signed the certificate."""
        return self._why([certificate_der], [issuer_der], "-no_check_time") is None

    def why_unverified(
        self, chain: Sequence[bytes], anchors: Sequence[bytes], at: int
    ) -> str | None:
        """Return why the chain, leaf first, leads to none of *anchors* at that time, or None."""
        if not anchors:
            return "there is no anchor to verify against"
        return self._why(chain, anchors, "-attime", str(at))

    def pkcs12(self, key_pem: bytes, chain: Sequence[bytes], password: bytes, name: str) -> bytes:
        """Return key and chain as PKCS#12 (RFC 7292), encrypted by AES-256."""
        with ExitStack() as stack:
            key = stack.enter_context(_memory(first_key(key_pem)))
            certificates = stack.enter_context(_memory(to_pem(chain)))
            secret = stack.enter_context(_memory(password + b"\n"))
            options = ["-export", "-inkey", key, "-in", certificates, "-name", name]
            options += ["-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC", "-macalg", "sha256"]
            options += ["-iter", "50000", "-passin", "pass:", "-passout", f"file:{secret}"]
            return self._run("the PKCS#12", "pkcs12", *options)

    def open_pkcs12(self, octets: bytes, password: bytes) -> tuple[bytes, list[bytes]]:
        """Return the key in PEM and the chain in DER of a PKCS#12."""
        with _memory(octets) as path, _memory(password + b"\n") as secret:
            options = ["-in", path, "-nodes", "-passin", f"file:{secret}"]
            done = self._start("pkcs12", *options)
            if done.returncode != 0:  # an old one, by ciphers that are switched off otherwise
                done = self._start("pkcs12", "-legacy", *options)
        if done.returncode != 0:
            raise CraftFault("the PKCS#12 cannot be opened with this password")
        text = done.stdout
        chain = pem_certificates(text.decode("ascii", "replace"))
        if b"PRIVATE KEY-----" not in text or not chain:
            raise CraftFault("the PKCS#12 has no key with its certificate")
        return first_key(text), chain

    def seal(self, octets: bytes, recipient_der: bytes) -> bytes:
        """Return *octets* enveloped for the recipient (RFC 5652 §6)."""
        with _memory(to_pem([recipient_der])) as recipient:
            options = ["-encrypt", "-binary", "-aes-256-cbc", "-outform", "DER", recipient]
            return self._run("the sealed key", "cms", *options, given=octets)

    def _sign(self, key_pem: bytes, kind: str, message: bytes) -> bytes:
        digest = "-sha384" if kind == "ec-p384" else "-sha256"
        with _memory(first_key(key_pem)) as path:
            return self._run(
                "a signature", "dgst", digest, "-passin", "pass:", "-sign", path, given=message
            )

    def _why(self, chain: Sequence[bytes], anchors: Sequence[bytes], *when: str) -> str | None:
        with ExitStack() as stack:
            leaf = stack.enter_context(_memory(to_pem(chain[:1])))
            trusted = stack.enter_context(_memory(to_pem(anchors)))
            options = [*_TRUST, *when, "-trusted", trusted]
            if chain[1:]:
                options += ["-untrusted", stack.enter_context(_memory(to_pem(chain[1:])))]
            done = self._start("verify", *options, leaf)
        if done.returncode == 0:
            return None
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        told = [line for line in lines if line.startswith("error ") and " lookup: " in line]
        return told[0].partition(" lookup: ")[2][:200] if told else "it cannot be verified"

    def _run(self, what: str, *arguments: str, given: bytes = b"") -> bytes:
        done = self._start(*arguments, given=given)
        if done.returncode != 0:
            raise CraftFault(f"{what} cannot be made or read by openssl {arguments[0]}")
        return done.stdout

    def _start(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        fds = [int(one.rpartition("/")[2]) for one in arguments if "/dev/fd/" in one]
        try:
            return subprocess.run(
                [self._program, *arguments],
                input=given,
                capture_output=True,
                pass_fds=fds,
                timeout=PROGRAM_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CraftFault(
                f"openssl {arguments[0]} did not run: {type(error).__name__}"
            ) from None


@contextmanager
def _memory(octets: bytes) -> Iterator[str]:
    """Lend the path of a file that is in memory alone and that only a child inherits."""
    fd = os.memfd_create("penstock", os.MFD_CLOEXEC)
    try:
        os.write(fd, octets)
        yield f"/dev/fd/{fd}"
    finally:
        os.close(fd)


def _kind(spki_der: bytes) -> str:
    try:
        return der.key_kind_of(spki_der)
    except (der.DerFault, ValueError, IndexError):
        raise CraftFault("the public key cannot be read") from None
