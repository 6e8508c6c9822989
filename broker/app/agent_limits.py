"""Limits of the agents' listener, put together: addresses as named proxies report them, buckets."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.channel.limits import AgentLimits
from broker.channel.shown import BEHIND_PROXY
from broker.config.model import AgentListener, Rates
from broker.issuance.ports import Clock
from broker.web.buckets import Buckets
from broker.web.limits import LimitObserver, client_network
from broker.web.origins import Origins, ProxyHeader
from broker.web.problems import Handler

__all__ = ["agent_limits", "agent_origins", "reported_addresses"]


def agent_origins(listen: AgentListener) -> Origins:
    """Return what knows the load balancers in front of the agents' listener."""
    return Origins(listen.proxies, ProxyHeader(listen.proxy_header))


def agent_limits(rates: Rates, clock: Clock, observer: LimitObserver) -> AgentLimits:
    """Return what keeps count for the agents' listener."""
    return AgentLimits(
        addresses=Buckets(rates.agents),
        nodes=Buckets(rates.nodes),
        network_of=client_network,
        clock=clock,
        on_refused=observer.limit_reached,
    )


def reported_addresses(origins: Origins) -> Middleware:
    """Return what has a request be from where named proxies say that it is from.

    Whatever is counted, logged or kept of an address is then the agent's, and a certificate that
    the proxy itself shows is nobody's.
    """

    @web.middleware
    async def report(request: web.Request, handler: Handler) -> web.StreamResponse:
        if origins.is_proxy(request.remote):
            address = origins.of(request).address
            if address is not None:
                request = request.clone(remote=address)
            request[BEHIND_PROXY] = True
        return await handler(request)

    return report
