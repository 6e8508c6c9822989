"""A client that goes on whatever becomes of the broker: it reads where its order stands and acts.

It keeps three things for an order, as a careful client on disk would: its account, the order's
URL and the CSR.  A newOrder whose answer never came it sends again, which makes another order.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.clock import SystemClock
from tests.deployments.ledger import Delivered
from tests.fakes.acme_client import AcmeClient, Answer, make_csr
from tests.fakes.hostile_ca.envelope import b64, thumbprint

PAUSE_SECONDS: Final = 0.05
"""Pause between two looks, far ruder than the Retry-After that the broker names."""

OBTAIN_SECONDS: Final = 120.0
"""Longest way to a certificate, crashes included: threats are answered within a minute."""

EXCHANGE_SECONDS: Final = 30.0
"""Longest wait for one answer: the broker holds finalize back for 5 s."""


class Refused(Exception):
    """The broker refused for good; the text is its answer."""


def binding(client: AcmeClient, key_id: str, mac_key: bytes) -> dict[str, str]:
    """Return an external account binding of the client's key (RFC 8555 §7.3.4)."""
    header = {"alg": "HS256", "kid": key_id, "url": client.directory["newAccount"]}
    protected, payload = (b64(json.dumps(part).encode()) for part in (header, client.jwk))
    signature = hmac.digest(mac_key, f"{protected}.{payload}".encode(), hashlib.sha256)
    return {"protected": protected, "payload": payload, "signature": b64(signature)}


def delivery(csr: x509.CertificateSigningRequest, chain_pem: bytes) -> Delivered:
    """Return what was delivered for *csr*, having seen that it is for its key and its names."""
    leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    assert leaf.public_key() == csr.public_key()
    assert _names(leaf) == _names(csr)
    digest = hashlib.sha256(csr.public_bytes(serialization.Encoding.DER)).hexdigest()
    return Delivered(digest, leaf.fingerprint(hashes.SHA256()).hex())


def _names(signed: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    found = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(found.get_values_for_type(x509.DNSName))


class Patient:
    """Sends requests of one account until the broker has answered."""

    def __init__(self, client: AcmeClient) -> None:
        self.client = client
        self.failures: list[str] = []
        """Every answer that was none: 5xx with its Retry-After, and connections that broke."""

    async def ask(self, url: str, payload: Any = None, *, by_key: bool = False) -> Answer:
        """Return the answer to a signed request, sent as often as it takes.

        Raises:
            Refused: The answer is a refusal other than badNonce.
        """
        while True:
            try:
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    answer = await self.client.post(url, payload, by_key=by_key)
            except (aiohttp.ClientError, OSError, TimeoutError, KeyError) as error:
                # KeyError: newNonce answered without a nonce, as an error does.
                self.client.nonce = None
                self.failures.append(type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.problem == "badNonce":
                continue
            if answer.status == 429:  # its own rudeness, where a machine is slow
                await asyncio.sleep(20 * PAUSE_SECONDS)
                continue
            if answer.status >= 500:
                self.failures.append(f"{answer.status} {answer.headers.get('Retry-After')}")
                await asyncio.sleep(4 * PAUSE_SECONDS)
                continue
            if answer.status >= 400:
                raise Refused(f"{url} answered {answer.status} {answer.body!r}")
            return answer


class Survivor(Patient):
    """Obtains one certificate for *names* under a key of its own."""

    def __init__(self, client: AcmeClient, *names: str, days: int | None = None) -> None:
        """Prepare a request; *days* from now is the end that is asked for, if any is."""
        super().__init__(client)
        self.names = names
        self._request: dict[str, Any] = {
            "identifiers": [{"type": "dns", "value": name} for name in names]
        }
        if days is not None:
            end = SystemClock().now().replace(microsecond=0) + timedelta(days=days)
            self._request["notAfter"] = end.isoformat().replace("+00:00", "Z")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.csr = make_csr(names, self.key)
        self.order_url: str | None = None
        self.statuses: list[str] = []
        """Statuses that the order was seen in, each noted when it changes."""

    async def obtain(self) -> Delivered:
        """Return what was delivered, having seen that it is for this key and these names."""
        async with asyncio.timeout(OBTAIN_SECONDS):
            order = await self.carry_to("valid")
            chain = await self.ask(order["certificate"])
        return delivery(self.csr, chain.body)

    async def carry_to(self, *wanted: str) -> dict[str, Any]:
        """Do what the order's status asks for until it is one of *wanted*; returns the order.

        Raises:
            Refused: It turned invalid.
        """
        while True:
            order = await self.look()
            status = order["status"]
            if status in wanted:
                return order
            if status == "invalid":
                raise Refused(f"{self.order_url} is invalid: {order.get('error')}")
            if status == "pending":
                await self._prove(order)
            elif status == "ready":
                await self._finalize(order)
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> dict[str, Any]:
        """Return the order as it stands, made first if its URL is unknown."""
        if self.order_url is None:
            answer = await self.ask(self.client.directory["newOrder"], self._request)
            self.order_url = answer.headers["Location"]
        else:
            answer = await self.ask(self.order_url)
        order: dict[str, Any] = answer.json()
        self._note(order)
        return order

    def _note(self, order: Mapping[str, Any]) -> None:
        if self.statuses[-1:] != [order["status"]]:
            self.statuses.append(order["status"])

    async def _prove(self, order: Mapping[str, Any]) -> None:
        for url in order["authorizations"]:
            authorization = (await self.ask(url)).json()
            for challenge in authorization["challenges"]:
                if (challenge["type"], challenge["status"]) == ("http-01", "pending"):
                    await self.ask(challenge["url"], {})

    async def _finalize(self, order: Mapping[str, Any]) -> None:
        der = self.csr.public_bytes(serialization.Encoding.DER)
        self._note((await self.ask(order["finalize"], {"csr": b64(der)})).json())


class ChallengeAnswers:
    """A web server that answers http-01 for one account, whatever the token (RFC 8555 §8.3)."""

    def __init__(self, client: AcmeClient, port: int) -> None:
        self._thumbprint = thumbprint(client.jwk)
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> ChallengeAnswers:
        application = web.Application()
        application.router.add_get("/.well-known/acme-challenge/{token}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *ended: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(text=f"{request.match_info['token']}.{self._thumbprint}")
