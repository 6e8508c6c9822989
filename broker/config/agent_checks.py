"""What is wrong with nodes that no section can see alone: their CA, its profile, the listener."""

from __future__ import annotations

from collections.abc import Iterator

from broker.config.model import Config
from broker.config.upstreams import BuiltinUpstream
from broker.policy.yamlfile import Fault, Lines

__all__ = ["check_agents"]


def check_agents(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield every fault of the sections about nodes, with its line."""
    agents = config.agents
    if agents is None:
        if config.listen.agents is not None:
            yield lines.fault(
                ("listen", "agents"),
                "there is a listener for agents, and nothing says who certifies nodes",
                "add agents with identity.upstream",
            )
        return
    identity = agents.identity
    upstream = config.upstreams.get(identity.upstream)
    if upstream is None:
        known = ", ".join(config.upstreams)
        yield lines.fault(
            ("agents", "identity", "upstream"),
            f"no upstream is called '{identity.upstream}'",
            f"known here: {known}",
        )
    elif not isinstance(upstream, BuiltinUpstream):
        yield lines.fault(
            ("agents", "identity", "upstream"),
            f"upstream '{identity.upstream}' is no built-in CA, which is what certifies nodes",
            "add an upstream of kind built-in",
        )
    else:
        yield from _check_profile(config, upstream, lines)


def _check_profile(config: Config, upstream: BuiltinUpstream, lines: Lines) -> Iterator[Fault]:
    identity = config.agents.identity if config.agents is not None else None
    if identity is None:
        return
    profile = upstream.profiles.get(identity.profile)
    if profile is None:
        known = ", ".join(upstream.profiles)
        yield lines.fault(
            ("agents", "identity", "profile"),
            f"built-in CA '{identity.upstream}' has no profile '{identity.profile}'",
            f"it has {known}",
        )
    elif "client-auth" not in profile.usages:
        yield lines.fault(
            ("agents", "identity", "profile"),
            f"profile '{identity.profile}' has not the usage client-auth, which identities need",
            "add it to its usages",
        )
