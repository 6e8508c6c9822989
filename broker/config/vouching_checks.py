"""What has to fit between the ways in which nodes enrol and the rest of the file."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from broker.config.model import Config
from broker.policy.yamlfile import Fault, KeyPath, Lines

__all__ = ["check_vouching"]


def check_vouching(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield what does not fit."""
    agents = config.agents
    if agents is None:
        return
    if agents.client_certificates and agents.client_anchors is None:
        yield lines.fault(
            ("agents", "client_certificates"),
            "client certificates have rules and no anchors",
            "name the roots in agents.client_anchors",
        )
    if agents.client_revocation_lists and not agents.client_certificates:
        yield lines.fault(
            ("agents", "client_revocation_lists"),
            "there are revocation lists, and no client certificate lets a node enrol",
            "add agents.client_certificates",
        )
    for place, rule in enumerate(agents.client_certificates):
        path: KeyPath = ("agents", "client_certificates", place, "community")
        yield from _check_community(config, lines, path, rule.community)
    for name, cluster in agents.clusters.items():
        for place, one in enumerate(cluster.rules):
            path = ("agents", "clusters", name, "rules", place, "community")
            yield from _check_community(config, lines, path, one.community)
    yield from _check_issuers(config, lines)


def _check_community(config: Config, lines: Lines, path: KeyPath, name: str) -> Iterator[Fault]:
    if name not in config.communities:
        near = get_close_matches(name, list(config.communities), 1)
        hint = f"did you mean '{near[0]}'?" if near else "define it in communities"
        yield lines.fault(path, f"community '{name}' is not defined", hint)


def _check_issuers(config: Config, lines: Lines) -> Iterator[Fault]:
    # A token is a secret of its cluster: it is shown to that cluster's API server and no other.
    clusters = config.agents.clusters if config.agents is not None else {}
    for name, cluster in clusters.items():
        others = [one for one in clusters if one != name and clusters[one].issuer == cluster.issuer]
        if cluster.review is not None and others:
            yield lines.fault(
                ("agents", "clusters", name, "issuer"),
                f"cluster '{name}' has the issuer of '{others[0]}' and reviews tokens, so those "
                "of the one would be shown to the other",
                "give the API servers different issuers, or use keys",
            )
