"""Which proxy a connection goes through, by the variables that every program here knows.

``HTTPS_PROXY`` names it and ``NO_PROXY`` what is reached without it: ``*``, names with everything
below them, addresses and networks, each with a port if one is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Proxy", "ProxyFault", "find_proxy", "split_address"]

HTTP_PORT: Final = 80
"""Port of a proxy that names none, as for every URL that begins with http."""


class ProxyFault(Exception):
    """The proxy that is configured cannot be used."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is asked to CONNECT."""

    host: str
    port: int
    authorization: str | None = None
    """Value of ``Proxy-Authorization``."""

    def __repr__(self) -> str:
        return f"proxy {self.host}:{self.port}"


def find_proxy(
    configured: str | None, host: str, port: int, environment: Mapping[str, str]
) -> Proxy | None:
    """Return the proxy on the way to *host*, or None; raises ProxyFault.

    What is configured goes before the environment, and NO_PROXY is not asked then.
    """
    if configured is not None:
        return _parse(configured)
    found = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
    if not found or _is_direct(host, port, environment):
        return None
    return _parse(found if "://" in found else f"http://{found}")


def _parse(text: str) -> Proxy:
    scheme, _, rest = text.partition("://")
    if scheme != "http":
        raise ProxyFault(f"proxy with scheme {scheme[:10]!r} is not spoken to, expected http")
    login, _, address = rest.split("/")[0].rpartition("@")
    host, port = split_address(address)
    if not host:
        raise ProxyFault("proxy has no host")
    return Proxy(host, port or HTTP_PORT, _authorization(login) if login else None)


def _authorization(login: str) -> str:
    import base64
    from urllib.parse import unquote

    return "Basic " + base64.b64encode(unquote(login).encode()).decode("ascii")


def split_address(address: str) -> tuple[str, int | None]:
    """Return host and port of ``HOST:PORT``, ``[ADDRESS]:PORT`` or a host alone; raises
    ProxyFault."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":")
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    else:
        host, port = address, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ProxyFault(f"port {port[:10]!r} is none")
    return host.lower(), int(port) if port else None


def _is_direct(host: str, port: int, environment: Mapping[str, str]) -> bool:
    listed = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    entries = [entry.strip() for entry in listed.split(",")]
    return any(_covers(entry, host.lower(), port) for entry in entries if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_in_network(host, entry)
    try:
        name, only_port = split_address(entry)
    except ProxyFault:
        return False
    if only_port is not None and only_port != port:
        return False
    name = name.removeprefix("*").removeprefix(".")
    return host == name or host.endswith(f".{name}")


def _is_in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
