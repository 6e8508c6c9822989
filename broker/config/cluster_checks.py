"""What has to fit between clusters: upstreams that are there, and names that cross no cluster."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from broker.config.model import Config
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.config.vouching import ClusterRuleSection
from broker.policy.overlaps import UNKNOWN, Loose, has_common_name, parse_loose
from broker.policy.yamlfile import Fault, KeyPath, Lines

__all__ = ["builtin_upstreams", "check_clusters", "check_workload_anchors"]

MAX_CROSSINGS: Final = 20
"""Most names that cross clusters which are told: one wrong rule makes one with each other."""

MAX_SPELLED: Final = 1_000
"""Most pairs of namespace and service account that are spelled out for one rule; beyond them both
count as unknown."""

KEY_LABELS: Final = 2
"""How many labels at the end of a name it is looked up by."""

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")


def builtin_upstreams(config: Config, community: str) -> tuple[str, ...]:
    """Return the built-in CAs that serve *community*."""
    return tuple(
        name
        for name, section in config.upstreams.items()
        if isinstance(section, BuiltinUpstream) and community in section.communities
    )


def check_clusters(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield what does not fit."""
    clusters = config.agents.clusters if config.agents is not None else {}
    for name, cluster in clusters.items():
        for place, rule in enumerate(cluster.rules):
            path: KeyPath = ("agents", "clusters", name, "rules", place)
            yield from _check_upstreams(config, lines, path, rule)
            yield from _check_shared_with(list(clusters), lines, path, rule)
    yield from itertools.islice(_crossings(config, lines), MAX_CROSSINGS)


def _check_upstreams(
    config: Config, lines: Lines, path: KeyPath, rule: ClusterRuleSection
) -> Iterator[Fault]:
    for place, name in enumerate(rule.upstreams):
        upstream = config.upstreams.get(name)
        where: KeyPath = (*path, "upstreams", place)
        if upstream is None:
            near = get_close_matches(name, list(config.upstreams), 1)
            hint = f"did you mean '{near[0]}'?" if near else "define it in upstreams"
            yield lines.fault(where, f"upstream '{name}' is not defined", hint)
        elif rule.community not in upstream.communities:
            yield lines.fault(
                where,
                f"upstream '{name}' does not serve community '{rule.community}'",
                "see its communities",
            )


def _check_shared_with(
    clusters: Sequence[str], lines: Lines, path: KeyPath, rule: ClusterRuleSection
) -> Iterator[Fault]:
    own = path[2]
    for place, name in enumerate(rule.shared_with):
        if name not in clusters or name == own:
            others = ", ".join(one for one in clusters if one != own) or "none"
            yield lines.fault(
                (*path, "shared_with", place),
                f"'{name}' is no other cluster",
                f"the others are: {others}",
            )


# ------------------------------------------------------------------------------- names that cross


@dataclass(frozen=True, slots=True)
class _Reached:
    """A name that a rule of a cluster can come to."""

    cluster: str
    place: int
    rule: ClusterRuleSection
    template: str
    loose: Loose

    @property
    def path(self) -> KeyPath:
        where: KeyPath = ("agents", "clusters", self.cluster, "rules", self.place)
        return (*where, "names") if self.rule.names else where

    @property
    def key(self) -> tuple[str, ...] | None:
        """Return what it can be looked up by, None where that is not known."""
        found = self.loose.labels[-KEY_LABELS:]
        is_known = len(found) == KEY_LABELS and not any(UNKNOWN in label for label in found)
        return found if is_known else None


def _crossings(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield each rule with names that a rule of another cluster reaches, and was not told so."""
    told: set[tuple[str, int, str, int]] = set()
    seen: dict[tuple[str, ...] | None, list[_Reached]] = defaultdict(list)
    for reached in _all_reached(config):
        alike = itertools.chain.from_iterable(
            seen.values() if reached.key is None else (seen[reached.key], seen[None])
        )
        for other in list(alike):
            pair = (other.cluster, other.place, reached.cluster, reached.place)
            if other.cluster == reached.cluster or pair in told or _is_shared(reached, other):
                continue
            if has_common_name(reached.loose, other.loose):
                told.add(pair)
                yield lines.fault(
                    reached.path,
                    f"{_named(reached)} of cluster '{reached.cluster}' can be had from cluster "
                    f"'{other.cluster}' too, by {_named(other)} of its rule {other.place + 1}",
                    "put {cluster} into the names, or name each other in shared_with of both rules",
                )
        seen[reached.key].append(reached)


def _named(reached: _Reached) -> str:
    return f"name '{reached.template}'" if reached.rule.names else "any name that policy allows"


def _is_shared(one: _Reached, other: _Reached) -> bool:
    return other.cluster in one.rule.shared_with and one.cluster in other.rule.shared_with


def _all_reached(config: Config) -> Iterator[_Reached]:
    clusters = config.agents.clusters if config.agents is not None else {}
    for name, cluster in clusters.items():
        for place, rule in enumerate(cluster.rules):
            for template in rule.names or ("**",):
                for text in _spelled(name, rule, template):
                    yield _Reached(name, place, rule, template, parse_loose(text))


def _spelled(cluster: str, rule: ClusterRuleSection, template: str) -> frozenset[str]:
    """Return what *template* can become, with what is not known marked."""
    namespaces = (UNKNOWN,) if "*" in rule.namespaces else rule.namespaces
    accounts = (UNKNOWN,) if "*" in rule.service_accounts else rule.service_accounts
    if len(namespaces) * len(accounts) > MAX_SPELLED:
        namespaces = accounts = (UNKNOWN,)
    return frozenset(
        _filled(template, {"cluster": cluster, "namespace": n, "service_account": a})
        for n, a in itertools.product(namespaces, accounts)
    )


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda match: values.get(match[1], UNKNOWN), template)


def check_workload_anchors(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield upstreams of cluster rules whose certificates pods would refuse, once they are issued
    and counted: their roots are not among those that are published."""
    clusters = config.agents.clusters if config.agents is not None else {}
    for name, cluster in clusters.items() if config.publishing is not None else ():
        for place, section in enumerate(cluster.rules):
            for number, upstream in enumerate(section.upstreams):
                if _has_unpublished_roots(config, section.community, upstream):
                    yield lines.fault(
                        ("agents", "clusters", name, "rules", place, "upstreams", number),
                        f"upstream '{upstream}' has no anchors, and neither has community "
                        f"'{section.community}', so pods that take the anchors of 'publishing' "
                        "would refuse its certificates",
                        f"name its roots in upstreams.{upstream}.anchors",
                    )


def _has_unpublished_roots(config: Config, community: str, upstream: str) -> bool:
    published = config.publishing.trust.communities if config.publishing is not None else ()
    if published and community not in published:
        return False  # its pods have their anchors from elsewhere
    found, ours = config.upstreams.get(upstream), config.communities.get(community)
    is_bare = isinstance(found, AcmeUpstream) and found.anchors is None
    return is_bare and (ours is None or ours.anchors is None)
