"""Caddy, the web server that gets its own certificates, reduced to that."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.peers import authority, process
from tests.peers.client import RUN_SECONDS, ClientFailed, Obtained
from tests.peers.installation import installed
from tests.peers.stock import DNS_01, HTTP_01, PLAIN, TLS_ALPN_01, Key, StockClient, Verb, Wish

KEY_TYPES: Final = {Key.P256: "p256", Key.P384: "p384", Key.RSA_2048: "rsa2048"}

LOOK_SECONDS: Final = 0.2
"""Pause between two looks at Caddy's store."""

NO_COMMAND: Final = "a server without a command for it"


class CaddyServer(process.Peer):
    """A Caddy with nothing but its management of certificates."""

    name = "caddy"

    def __init__(self, tmp: Path, document: dict[str, Any]) -> None:
        super().__init__(tmp)
        self._document = document

    def command(self) -> Sequence[str]:
        """Write caddy.json and return the command line."""
        config = self.directory / "caddy.json"
        config.write_text(json.dumps(self._document, indent=1), "utf-8")
        return [str(installed("caddy")), "run", "--config", str(config)]

    def is_ready(self) -> bool:
        """See that it says so, and that it has left this machine's trusted roots alone."""
        log = self.log_text()
        if "installing root certificate" in log:
            raise process.PeerFailed("caddy adds a root of its own to those that are trusted here")
        return "serving initial configuration" in log


class Caddy(StockClient):
    """One Caddy with its own account and store; run it once at a time."""

    kind = "Caddy"
    lacks: ClassVar = {
        DNS_01: "needs a provider module that the stock build has not",
        Verb.REVOKE: NO_COMMAND,
        Verb.REVOKE_BY_KEY: NO_COMMAND,
        Verb.CONTACT: NO_COMMAND,
        Verb.KEY_CHANGE: NO_COMMAND,
        Verb.DEACTIVATE: NO_COMMAND,
        Verb.CSR: "makes its keys itself",
    }

    _last: tuple[Sequence[str], str, Wish] | None = None
    _server: CaddyServer | None = None

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Start with *names* to manage, and wait for the first one's certificate.

        Caddy orders a certificate for each name.
        """
        self._last = (names, challenge, wish)
        await self._restart({})
        return await self._stored(None)

    async def renew(self) -> Obtained:
        """Start again with a window that begins when the certificate does."""
        # Renewal is due when less than this share of the lifetime is left.
        return await self._again({"renewal_window_ratio": 0.99999})

    async def renew_when_told(self) -> Obtained:
        """Start again with a window at the very end, so that only renewal information renews.

        The time is set back that it keeps for asking again, as if that had passed.
        """
        kept = self._files()[0].with_suffix(".json")
        past = r'\1"2026-01-01T00:00:00Z"'
        kept.write_text(re.sub(r'("_retryAfter": *)"[^"]+"', past, kept.read_text()), "utf-8")
        return await self._again({"renewal_window_ratio": 0.0001})

    async def close(self) -> None:
        """End the server."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)

    async def _again(self, policy: dict[str, Any]) -> Obtained:
        before = self._files()[0].read_bytes()
        await self._restart(policy)
        return await self._stored(before)

    async def _restart(self, policy: dict[str, Any]) -> None:
        await self.close()
        self._server = CaddyServer(self.directory, self._document(policy))
        self._server.log_file.unlink(missing_ok=True)
        await asyncio.to_thread(self._server.start)

    async def _stored(self, before: bytes | None) -> Obtained:
        """Wait for a certificate other than *before*."""
        assert self._server is not None
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            certificate, key = self._files()
            found = certificate.read_bytes() if certificate.exists() and key.exists() else None
            if found and found != before and found.rstrip().endswith(b"-----END CERTIFICATE-----"):
                break
            if time.monotonic() > deadline:
                log = self._server.log_text()
                raise ClientFailed(f"no certificate in {certificate}\n{process.tail(log)}", log)
            await asyncio.sleep(LOOK_SECONDS)
        await self.close()
        return self._split(certificate, key)

    def _split(self, fullchain: Path, key: Path) -> Obtained:
        end = "-----END CERTIFICATE-----\n"
        leaf, _, chain = fullchain.read_text("ascii").partition(end)
        where = Obtained(
            certificate=self.directory / "cert.pem",
            chain=self.directory / "chain.pem",
            fullchain=fullchain,
            key=key,
        )
        where.certificate.write_text(leaf + end, "ascii")
        where.chain.write_text(chain, "ascii")
        return where

    def _files(self) -> tuple[Path, Path]:
        folder = self.directory / "store" / "certificates" / self._issuer_folder()
        for found in folder.glob("*/*.crt"):
            return found, found.with_suffix(".key")
        absent = folder / "none.crt"
        return absent, absent.with_suffix(".key")

    def _issuer_folder(self) -> str:
        """Return the name under which it keeps what comes from this directory."""
        return self.directory_url.removeprefix("https://").replace(":", "-").replace("/", "-")

    def _document(self, policy: dict[str, Any]) -> dict[str, Any]:
        assert self._last is not None
        names, challenge, wish = self._last
        issuer: dict[str, Any] = {
            "module": "acme",
            "ca": self.directory_url,
            "email": "caddy@example.com",
            "trusted_roots_pem_files": [str(self.ca_bundle)],
            "challenges": {
                "bind_host": self.place.address,
                "http": {
                    "disabled": challenge != HTTP_01,
                    "alternate_port": self.place.http_port,
                },
                "tls-alpn": {
                    "disabled": challenge != TLS_ALPN_01,
                    "alternate_port": self.place.tls_port,
                },
            },
        }
        if self.external_account is not None:
            kid, key = self.external_account.kid, self.external_account.hmac_b64url
            issuer["external_account"] = {"key_id": kid, "mac_key": key}
        if wish.profile is not None:
            issuer["profile"] = wish.profile
        if wish.not_after is not None:
            lifetime = wish.not_after - authority.real_now()
            issuer["certificate_lifetime"] = f"{int(lifetime.total_seconds())}s"
        if wish.chain_of is not None:
            issuer["preferred_chains"] = {"any_common_name": [wish.chain_of]}
        managed = {"key_type": KEY_TYPES[wish.key], "issuers": [issuer], **policy}
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "storage": {"module": "file_system", "root": str(self.directory / "store")},
            "apps": {
                "tls": {
                    "certificates": {"automate": list(names)},
                    "automation": {"policies": [managed], "renew_interval": "2s"},
                    "disable_ocsp_stapling": True,
                    "disable_storage_clean": True,
                },
                # It has a CA of its own in reserve, whose root is no business of this machine.
                "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            },
        }
