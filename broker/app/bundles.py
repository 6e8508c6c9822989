"""What the bundles of nodes hold: anchors of communities and their CAs, lists of built-in CAs."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.upstreams import ConfiguredUpstreams
from broker.config import Config
from broker.issuance.bundle_ports import BUNDLE_NAMES, BundleContents

__all__ = ["ConfiguredBundles"]


class ConfiguredBundles:
    """Implements ``bundle_ports.BundleSource``."""

    def __init__(self, config: Config, upstreams: ConfiguredUpstreams) -> None:
        self._config = config
        self._upstreams = upstreams

    async def contents(self, community: str) -> Mapping[str, BundleContents]:
        """Return the bundles of a community; one that is empty is left out."""
        pems = self._anchors(community), await self._lists(community)
        made = dict(zip(BUNDLE_NAMES, pems, strict=True))
        return {name: BundleContents(content=name, pem=pem) for name, pem in made.items() if pem}

    def _serving(self, community: str) -> list[str]:
        """Return who issues for the community; the CA of nodes is for the broker's eyes alone."""
        agents = self._config.agents
        of_nodes = None if agents is None else agents.identity.upstream
        return [
            name
            for name, made in self._config.upstreams.items()
            if community in made.communities and name != of_nodes
        ]

    def _anchors(self, community: str) -> str:
        """Return every anchor that a chain for this community may end at, each once."""
        found: dict[bytes, None] = {}
        for upstream in self._serving(community):
            found.update(dict.fromkeys(self._upstreams.of(upstream, community) or ()))
        return "".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")
            for der in sorted(found)
        )

    async def _lists(self, community: str) -> str:
        """Return the revocation list of every issuing CA of our own that serves the community."""
        lists = []
        for upstream in self._serving(community):
            authority = self._upstreams.authorities.get(upstream)
            for issuer in () if authority is None else authority.issuers:
                crl = (
                    None
                    if authority is None
                    else await authority.current_crl(issuer.published_name)
                )
                if crl is not None:
                    made = x509.load_der_x509_crl(crl.der)
                    lists.append(made.public_bytes(Encoding.PEM).decode("ascii"))
        return "".join(sorted(lists))
