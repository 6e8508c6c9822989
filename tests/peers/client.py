"""What the stock ACME clients share: how they run, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from tests.peers import process

RUN_SECONDS: Final = 240.0
"""Longest run of a client; the slowest here, dns-01 with refused nonces, needs about 10 s."""


def is_address(name: str) -> bool:
    """Say whether an identifier is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """Key id and MAC key, base64url, that bind a client's account (RFC 8555 §7.3.4)."""

    kid: str
    hmac_b64url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DnsUpdates:
    """Where and how a client may set its dns-01 records (RFC 2136, RFC 8945)."""

    host: str
    port: int
    tsig_name: str
    tsig_secret_b64: str = field(repr=False)
    tsig_algorithm: str = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Obtained:
    """Where a client keeps one certificate; *key* is None where the CSR came from outside."""

    certificate: Path
    chain: Path
    fullchain: Path
    key: Path | None

    def leaf(self) -> x509.Certificate:
        """Return the certificate itself, read anew."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def issuers(self) -> list[x509.Certificate]:
        """Return the certificates that came with it, in the order they came."""
        return x509.load_pem_x509_certificates(self.chain.read_bytes())

    def names(self) -> list[str]:
        """Return the DNS names and the addresses of the certificate, sorted."""
        extension = self.leaf().extensions.get_extension_for_class(x509.SubjectAlternativeName)
        addresses = [str(one) for one in extension.value.get_values_for_type(x509.IPAddress)]
        return sorted([*extension.value.get_values_for_type(x509.DNSName), *addresses])


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of a client: what it printed, and how long it took."""

    output: str
    seconds: float


class ClientFailed(process.PeerFailed):
    """A client ended with an error; *output* is all it printed."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


async def run_client(
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    seconds: float = RUN_SECONDS,
) -> Run:
    """Run a client to its end, its home and its working directory being *directory*.

    Raises:
        ClientFailed: It failed, or was not done after *seconds*; nothing of it is left.
    """
    started = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
        env=process.clean_environment(directory, environment),
        start_new_session=True,
    )
    shown = " ".join(command)
    printed = bytearray()
    try:
        async with asyncio.timeout(seconds):
            await _collect(child, printed)
            status = await child.wait()
    except TimeoutError:
        output = printed.decode("utf-8", "replace")
        text = f"not done after {seconds:g} s: {shown}\n{process.tail(output)}"
        raise ClientFailed(text, output) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    output = printed.decode("utf-8", "replace")
    if status != 0:
        text = f"ended with status {status}: {shown}\n{process.tail(output, 60)}"
        raise ClientFailed(text, output)
    return Run(output, time.monotonic() - started)


async def _collect(child: asyncio.subprocess.Process, printed: bytearray) -> None:
    assert child.stdout is not None
    while chunk := await child.stdout.read(65536):
        printed.extend(chunk)
