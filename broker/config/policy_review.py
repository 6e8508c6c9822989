"""Policy directories as a reviewer looks at them: without a broker, and beside the one in force.

``policy test`` needs no configuration at all; ``policy diff`` and ``policy impact`` hold a
directory against the configuration, and demand no signatures: what is reviewed is signed later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.config.model import Config
from broker.config.policies import (
    join_policies,
    parse_files,
    policy_directories,
    shipped_descriptions,
)
from broker.config.policy_files import read_policy_files
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.policy_ports import LoadedPolicies, PolicyTexts
from broker.policy.case_runs import CaseResult, run_cases
from broker.policy.decisions import ProfileLifetime, UpstreamFacts
from broker.policy.forecast import Foreseen, foresee
from broker.policy.policy_set import PolicySet, parse_policy_set
from broker.policy.replay import World
from broker.policy.yamlfile import Fault, Faults

__all__ = [
    "CaseRun",
    "facts_by_community",
    "foreseen_by",
    "load_directory",
    "load_texts",
    "run_directories",
    "world_of",
]

READ_TRIES: Final = 20
"""How often files are read that change while they are read, before that is told."""


@dataclass(frozen=True, slots=True)
class CaseRun:
    """A set of policies with what came of its cases."""

    policies: PolicySet
    results: tuple[CaseResult, ...]

    @property
    def without_cases(self) -> tuple[str, ...]:
        """Return the files of policies that no case is about."""
        tried = {result.policy for result in self.results}
        documents = self.policies.documents.values()
        return tuple(one.source for one in documents if one.source not in tried)

    @property
    def untried_rules(self) -> tuple[str, ...]:
        """Return the rules that speak of no case, each with its place."""
        spoken = {rule for result in self.results for rule in result.rules}
        return tuple(str(rule) for rule in self.policies.rules if rule.ref not in spoken)


def run_directories(directories: Sequence[Path]) -> CaseRun:
    """Return what comes of the cases in *directories*, which are read as one set.

    Raises:
        Broken: A directory cannot be read.
        Faults: All that is wrong with its files.
    """
    texts = _read(directories)
    files: dict[str, str] = {}
    faults: list[Fault] = []
    for name, octets in texts.files.items():
        try:
            files[name] = octets.decode("utf-8")
        except UnicodeDecodeError:
            faults.append(Fault(name, 1, "", "is not UTF-8"))
    if faults:
        raise Faults(faults)
    policies = parse_policy_set(files)
    descriptions = {**shipped_descriptions(), **policies.descriptions}
    results = run_cases(policies.documents.values(), policies.cases.values(), descriptions)
    return CaseRun(policies, results)


def load_directory(config: Config, directory: Path | None) -> LoadedPolicies:
    """Return the policies of *directory*, or of the configured ones, held against *config*.

    Raises:
        Broken: A directory cannot be read.
        Faults: All that is wrong with its files, a case that fails among them.
    """
    directories = policy_directories(config) if directory is None else (directory,)
    return load_texts(config, _read(directories))


def load_texts(config: Config, texts: PolicyTexts) -> LoadedPolicies:
    """Return the policies that *texts* say, held against *config*.

    Raises:
        Faults: All that is wrong with them, a case that fails among them.
    """
    return join_policies(config, texts, parse_files(texts.files), None)


def world_of(config: Config, policies: LoadedPolicies, at: datetime) -> World:
    """Return the world in which requests are asked of *policies* on the day of *at*."""
    return World(
        documents=policies.documents,
        upstreams=facts_by_community(config, policies.facts),
        at=at,
    )


def foreseen_by(
    config: Config, policies: LoadedPolicies, *, after: date, until: date
) -> tuple[Foreseen, ...]:
    """Return what comes to *policies* past *after*, up to *until*, the soonest first."""
    facts = facts_by_community(config, policies.facts)
    found = [
        one
        for community, document in policies.documents.items()
        for one in foresee(document, facts.get(community, ()), after=after, until=until)
    ]
    return tuple(sorted(found, key=lambda one: one.on))


def facts_by_community(
    config: Config, facts: Mapping[str, UpstreamFacts]
) -> Mapping[str, tuple[UpstreamFacts, ...]]:
    """Return the facts of every upstream that serves each community, ready or not.

    *facts* are those of the ACME upstreams; what a built-in CA can do stands in the configuration.
    """
    made: dict[str, list[UpstreamFacts]] = {name: [] for name in config.communities}
    for name, upstream in config.upstreams.items():
        known = (
            _built_in(name, upstream) if isinstance(upstream, BuiltinUpstream) else facts.get(name)
        )
        for community in upstream.communities if known is not None else ():
            if known is not None and community in made:
                made[community].append(known)
    return {community: tuple(listed) for community, listed in made.items()}


def _built_in(name: str, upstream: BuiltinUpstream) -> UpstreamFacts:
    default = next(iter(upstream.profiles.values()))
    return UpstreamFacts(
        name=name,
        description="built-in",
        honours_not_after=True,
        min_lifetime=timedelta(),
        max_lifetime=default.max_lifetime,
        default_lifetimes=_always(default.lifetime),
        profiles={profile: _always(made.lifetime) for profile, made in upstream.profiles.items()},
        backdate_tolerance=upstream.backdate,
        is_ct_logged=False,
        # Its issuer may be held to fewer by name constraints, which stand in the store.
        identifier_types=frozenset({"dns", "ip", "email"}),
        is_builtin=True,
    )


def _always(lifetime: timedelta) -> tuple[ProfileLifetime, ...]:
    return (ProfileLifetime(valid_from=date.min, lifetime=lifetime),)


def _read(directories: Sequence[Path]) -> PolicyTexts:
    for _ in range(READ_TRIES):
        try:
            return read_policy_files(directories)
        except Unreachable:
            continue
    raise Broken("policy files change all the time, so that they were not read")
