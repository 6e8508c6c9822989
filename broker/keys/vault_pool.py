"""hvac beside the event loop: a few threads for logins, KV and administration.

hvac asks whom the environment names, follows redirects and raises what requests raises; here it
asks the configured addresses, follows none, and what it meets is told in this room's own words.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import hvac
import hvac.adapters
import hvac.exceptions
import requests
import requests.exceptions
import urllib3.exceptions

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, Denied, RawAnswer, VaultState, read_answer
from broker.keys.vault_http import MAX_ANSWER_BYTES, headers_for
from broker.keys.vault_limits import LimitedAdapter, TimeLimit, read_bounded
from broker.keys.vault_settings import VaultSettings

__all__ = ["BlockingExchange", "HvacPool", "RequestsExchange", "VaultAdapter"]

POOL_THREADS: Final = 4
"""Most calls of hvac at a time.  Logins, KV reads and administration come one by one; signatures
do not come here."""

PATIENCE: Final = 3
"""How many time limits of one request a whole call may take: it may wait for a thread and make
several requests, and a reader of KV has to be told within a client's patience."""

T = TypeVar("T")


class BlockingExchange(Protocol):
    """Carries one request to one address of Vault, while a thread waits."""

    def send(
        self,
        address: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        certificate: tuple[str, str] | None,
    ) -> RawAnswer:
        """Return the answer, whatever its status.

        Raises:
            Away: None came.
            Broken: Our own TLS files cannot be used.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class VaultAdapter(hvac.adapters.JSONAdapter):
    """What hvac speaks through: addresses, faults and redirects are seen to here."""

    exchange: BlockingExchange
    addresses: Addresses
    answered: list[str]
    """Method and path of what was answered."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: ARG002 - hvac's own signature
        **kwargs: Any,
    ) -> Any:
        """Return the document that Vault answered.

        Raises:
            Away: No address had a usable answer.
            Denied: The token may not do this.
            Broken: It will answer so until a person acts.
        """
        verb, path = method.upper(), "/" + url.strip("/")
        query = dict(kwargs.get("params") or {})
        if verb == "LIST":
            verb, query = "GET", {**query, "list": "true"}
        sent = {**headers_for(self.token or None, self.namespace), **(headers or {})}
        if kwargs.get("wrap_ttl"):
            sent["X-Vault-Wrap-TTL"] = str(kwargs["wrap_ttl"])
        document = kwargs.get("json")
        body = None if document is None else json.dumps(document).encode()
        what = f"{verb} {path.removeprefix('/v1/')}"
        if query:
            path += "?" + requests.models.RequestEncodingMixin._encode_params(query)
        send = partial(self.exchange.send, certificate=kwargs.get("cert"))
        return self._ask(what, lambda address: send(address, verb, path, sent, body))

    def _ask(self, what: str, send: Callable[[str], RawAnswer]) -> Mapping[str, Any]:
        trip = self.addresses.trip(is_repeatable=what.startswith("GET "))
        for address in trip:
            try:
                answer = read_answer(send(address), what)
            except Away as fault:
                trip.failed(address, fault)
            except (Denied, Broken):
                trip.answered(address)
                raise
            else:
                trip.answered(address)
                self.answered.append(what)
                return answer
        raise trip.verdict()


class HvacPool:
    """Runs calls of hvac in a few threads of their own."""

    def __init__(
        self, exchange: BlockingExchange, addresses: Addresses, settings: VaultSettings
    ) -> None:
        self._exchange = exchange
        self._addresses = addresses
        self._namespace = settings.namespace
        self._limit = settings.timeout * (PATIENCE * len(addresses.all))
        for name in ("hvac", "requests", "urllib3"):
            # Whatever a person asks to be logged: what these send holds tokens.
            logging.getLogger(name).setLevel(logging.ERROR)
        self._threads = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="vault")

    def close(self) -> None:
        """Begin no more calls, and close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._exchange.close()

    async def run(self, call: Callable[[hvac.Client], T], token: str | None) -> T:
        """Return what *call* returns, which speaks to Vault with this token.

        Raises:
            Away: Vault had no usable answer, or not in time.
            Denied: The token may not do this.
            Broken: It will answer so until a person acts.
        """
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, partial(self._call, call, token)
            )
        except RuntimeError:  # the pool is closed
            raise Away(VaultState.UNREACHABLE, "the broker is stopping") from None
        try:
            return await asyncio.wait_for(work, self._limit.total_seconds())
        except TimeoutError:
            reason = f"no answer within {_seconds(self._limit)}"
            raise Away(VaultState.SLOW, reason, left_nothing=False) from None

    def _call(self, call: Callable[[hvac.Client], T], token: str | None) -> T:
        client = hvac.Client(
            url=self._addresses.all[0],
            token=token or "",  # None would have it look into the environment and the home
            verify=True,
            namespace=self._namespace,
            adapter=self._adapter,  # type: ignore[arg-type] # it is only ever called
        )
        try:
            return call(client)
        except hvac.exceptions.VaultError as error:
            raise Broken(f"hvac cannot ask that: {type(error).__name__}") from None

    def _adapter(self, **options: Any) -> VaultAdapter:
        adapter = VaultAdapter(**options)
        adapter.exchange = self._exchange
        adapter.addresses = self._addresses
        adapter.answered = []
        return adapter


class RequestsExchange:
    """Implements `BlockingExchange` over requests, which hvac brings along."""

    def __init__(self, settings: VaultSettings) -> None:
        self._timeout = settings.timeout.total_seconds()
        paths = ssl.get_default_verify_paths()
        own = str(settings.ca_bundle) if settings.ca_bundle else None
        self._bundle = own
        self._verify: str | bool = own or paths.cafile or paths.capath or True
        self._session = _session()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def send(
        self,
        address: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        certificate: tuple[str, str] | None,
    ) -> RawAnswer:
        """Return the answer, whatever its status; see `BlockingExchange`."""
        request = requests.Request(method, address + path, headers=dict(headers), data=body)
        try:
            if certificate is None:
                return self._send(self._session, request, None)
            # A session of its own: a kept connection would still show the certificate of before.
            with closing(_session()) as session:
                return self._send(session, request, certificate)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._told(error) from None
        except OSError:
            raise Broken(
                f"TLS files for Vault cannot be read: {self._bundle or certificate}"
            ) from None

    def _send(
        self,
        session: requests.Session,
        request: requests.Request,
        certificate: tuple[str, str] | None,
    ) -> RawAnswer:
        with TimeLimit(self._timeout) as limit:
            try:
                answer = session.send(
                    session.prepare_request(request),
                    timeout=self._timeout,
                    allow_redirects=False,
                    verify=self._verify,
                    cert=certificate,
                    stream=True,
                )
                with closing(answer):
                    content = read_bounded(answer, MAX_ANSWER_BYTES)
            except requests.exceptions.ConnectTimeout:
                raise Away(VaultState.UNREACHABLE, "no connection in time") from None
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
                if limit.is_over:
                    raise self._slow() from None
                raise
            if limit.is_over:  # an end that the cut made looks like one of the server's
                raise self._slow()
        if content is None:
            reason = f"answer is larger than {MAX_ANSWER_BYTES} bytes"
            raise Away(VaultState.FAILING, reason, left_nothing=False)
        received = {name.lower(): value for name, value in answer.headers.items()}
        return RawAnswer(status=answer.status_code, headers=received, body=content)

    def _slow(self) -> Away:
        reason = f"no answer within {self._timeout:g} s"
        return Away(VaultState.SLOW, reason, left_nothing=False)

    def _told(self, error: Exception) -> Away:
        if isinstance(error, requests.exceptions.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
            return self._slow()
        if isinstance(error, requests.exceptions.SSLError):
            return Away(
                VaultState.UNTRUSTED,
                "certificate is not trusted, or ours is refused; see vault.ca_bundle and both "
                "clocks",
            )
        cause = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return Away(VaultState.UNREACHABLE, "connection refused or name unknown")
        reason = f"connection broke: {type(error).__name__}"
        return Away(VaultState.UNREACHABLE, reason, left_nothing=False)


def _session() -> requests.Session:
    session = requests.Session()
    session.mount("https://", LimitedAdapter())
    session.trust_env = False  # neither proxies nor bundles nor passwords of the environment
    session.headers.update({"User-Agent": "penstock", "Accept-Encoding": "identity"})
    return session


def _seconds(limit: timedelta) -> str:
    return f"{limit.total_seconds():g} s"
