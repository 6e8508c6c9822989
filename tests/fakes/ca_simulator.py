"""An ACME CA without sockets: takes exchange requests, returns responses.

The CA behind it is the one of ``tests.fakes.hostile_ca``, which reads requests with code of its
own, signs for real, counts, and is honest unless its script says otherwise.  Here it stands where
an upstream's transport would, in one process and without a wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from broker.issuance.errors import Unreachable
from broker.protocol.exchange import HttpRequest, HttpResponse
from tests.fakes.hostile_ca.envelope import Refused, open_request
from tests.fakes.hostile_ca.ledger import Ledger, Seen
from tests.fakes.hostile_ca.resources import Reply, Resources
from tests.fakes.hostile_ca.script import Fault, Resource, Script

Intercept = Callable[[Callable[[], HttpResponse]], HttpResponse]
"""Answers a request in place of the CA; it may ask the CA for the true answer."""


class CaSimulator:
    """``upstreams.transport.Transport`` that ends in a CA."""

    def __init__(self, script: Script | None = None, base_url: str = "https://ca.example") -> None:
        self.base_url = base_url
        self.directory_url = f"{base_url}/{Resource.DIRECTORY}"
        self.script = script or Script()
        self.ledger = Ledger()
        self.requests: list[HttpRequest] = []
        self.resources = Resources(base_url, lambda: self.script, self.ledger)
        self._intercepts: dict[Resource, list[Intercept]] = {}
        self.hanging = asyncio.Event()
        """Set once a request hangs; it hangs until its task is cancelled."""

    def intercept(self, resource: Resource, answer: Intercept, *, times: int = 1) -> None:
        """Let *answer* have the next requests for *resource*."""
        self._intercepts.setdefault(resource, []).extend([answer] * times)

    def change(self, resource: Resource, changes: Mapping[str, object], *, times: int = 1) -> None:
        """Change members in the JSON that the next requests for *resource* are answered with."""
        self.intercept(resource, lambda honest: with_members(honest(), changes), times=times)

    def asked(self, resource: Resource) -> int:
        """Return how often *resource* was asked for."""
        return self.ledger.count(resource)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the CA's answer to *request*."""
        self.requests.append(request)
        assert request.url.startswith(f"{self.base_url}/"), f"sent to a stranger: {request.url}"
        path = request.url.removeprefix(f"{self.base_url}/")
        name, _, id_ = path.partition("/")
        resource = Resource(name)
        order_id = self.resources.records.order_id_of(resource, id_)
        self.ledger.requests.append(Seen(resource, order_id, 0.0))

        def honest() -> HttpResponse:
            return self._answer(request, resource, id_)

        waiting = self._intercepts.get(resource)
        if waiting:
            return cut(waiting.pop(0)(honest), request)
        fault = self.script.take_fault(resource)
        if fault is not None:
            return cut(await self._fail(fault, honest), request)
        return cut(honest(), request)

    async def _fail(self, fault: Fault, honest: Callable[[], HttpResponse]) -> HttpResponse:
        true = honest() if fault.processed else HttpResponse(200, ())
        if fault.hang:
            self.hanging.set()
            await asyncio.Event().wait()
        if fault.drop:
            raise Unreachable("connection reset")
        headers = {
            **dict(true.headers),
            "Replay-Nonce": self.resources.records.new_nonce(),
            "Content-Type": fault.content_type,
            **fault.headers,
        }
        body = true.body if fault.body is None else fault.body.encode()
        return HttpResponse(fault.status or true.status, tuple(headers.items()), body)

    def _answer(self, request: HttpRequest, resource: Resource, id_: str) -> HttpResponse:
        reply = self._reply(request, resource, id_)
        body = reply.body if reply.document is None else json.dumps(reply.document).encode()
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if request.method != "GET":
            headers["Replay-Nonce"] = self.resources.records.new_nonce()
        return HttpResponse(reply.status, tuple(headers.items()), body)

    def _reply(self, request: HttpRequest, resource: Resource, id_: str) -> Reply:
        if resource is Resource.DIRECTORY:
            return self.resources.directory()
        if resource is Resource.RENEWAL_INFO:
            return self.resources.renewal_info()
        if resource is Resource.NEW_NONCE:
            return Reply(status=200 if request.method == "HEAD" else 204)
        try:
            opened = open_request(
                request.body or b"",
                request.url,
                redeem_nonce=self.resources.records.redeem_nonce,
                jwk_of_account=self.resources.jwk_of_account,
            )
            return self.resources.perform(resource, id_, opened)
        except Refused as refused:
            return Reply(
                refused.status,
                problem(refused.problem, refused.detail, refused.status),
                content_type="application/problem+json",
            )


def problem(token: str, detail: str, status: int) -> dict[str, Any]:
    """Return a problem document."""
    type_ = f"urn:ietf:params:acme:error:{token}"
    return {"type": type_, "detail": detail, "status": status}


def with_members(response: HttpResponse, changes: Mapping[str, object]) -> HttpResponse:
    """Return *response* with members of its JSON changed; None takes one away."""
    document = json.loads(response.body) | dict(changes)
    kept = {name: value for name, value in document.items() if value is not None}
    return HttpResponse(response.status, response.headers, json.dumps(kept).encode())


def with_header(response: HttpResponse, name: str, value: str | None) -> HttpResponse:
    """Return *response* with one header set; None takes it away."""
    kept = tuple((key, old) for key, old in response.headers if key.lower() != name.lower())
    headers = kept if value is None else (*kept, (name, value))
    return HttpResponse(response.status, headers, response.body)


def cut(response: HttpResponse, request: HttpRequest) -> HttpResponse:
    """Return no more of the body than the request allows, as a transport does."""
    limit = request.max_answer_bytes
    if len(response.body) <= limit:
        return response
    return HttpResponse(response.status, response.headers, response.body[:limit], is_cut=True)
