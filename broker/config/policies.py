"""Policy files and upstream facts, read from their directories and held against the configuration.

A community without a policy, a policy that names an upstream which is not there: found before
anything starts.  What the files mean is ``policy``'s affair; where they lie is known here alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from broker.config.model import Config
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.issuance.errors import Broken
from broker.policy.decisions import UpstreamFacts
from broker.policy.document import PolicyDocument, parse_policy
from broker.policy.upstream_facts import (
    UnknownDescription,
    UpstreamDescription,
    facts_for,
    parse_upstream_facts,
)
from broker.policy.yamlfile import MAX_TEXT_BYTES, Fault, Faults, Lines

__all__ = ["LoadedPolicies", "default_policies", "load_policies"]

FACTS_FILE: Final = "upstreams.yaml"
"""The file of a policy directory that describes upstreams; all others are policies."""

_PACKAGE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicies:
    """Every policy that is in force, and what is known of the ACME upstreams.

    Implements ``issuance.ports.Policies``.
    """

    documents: Mapping[str, PolicyDocument]
    """By community."""
    facts: Mapping[str, UpstreamFacts]
    """By upstream; of a built-in CA the CA itself knows best."""
    unused: tuple[Path, ...] = field(default=())
    """Files in configured directories whose community is not configured."""

    def current(self, community: str) -> PolicyDocument:
        """Return the community's document; raises KeyError for an unknown community."""
        return self.documents[community]


def default_policies() -> Path:
    """Return the directory of the policies that came with the broker.

    In a wheel they lie beside the code, in a clone beside the package.
    """
    installed = _PACKAGE / "default_policies"
    return installed if installed.is_dir() else _PACKAGE.parent / "policies"


def load_policies(config: Config, lines: Lines | None = None) -> LoadedPolicies:
    """Return the policies of the configured directories; *lines* places faults of *config*.

    Raises:
        Broken: A directory or file cannot be read.
        Faults: All that is wrong with any of the files, or between them and *config*.
    """
    where = lines or Lines("configuration", {})
    directories = config.policies or (default_policies(),)
    faults: list[Fault] = []
    documents: dict[str, PolicyDocument] = {}
    paths: dict[str, Path] = {}
    unused: list[Path] = []
    for directory, path in _policy_files(directories):
        try:
            # Rules are shown to clients as well: they name the file, not where it lies.
            document = parse_policy(_read(path), source=str(path.relative_to(directory)))
        except Faults as found:
            faults += _at(path, found.faults)
            continue
        first = paths.get(document.community)
        if document.community not in config.communities:
            if config.policies is not None:  # the shipped samples wait for their community
                unused.append(path)
        elif first is not None:
            message = f"community '{document.community}' has a policy already: {first}"
            faults.append(Fault(str(path), 1, "community", message))
        else:
            documents[document.community] = document
            paths[document.community] = path
    facts = _load_facts(config, directories, where, faults)
    faults += _check_communities(config, documents, where, has_faults=bool(faults))
    for community, document in documents.items():
        faults += _at(paths[community], _check_choices(config, document, facts))
    if faults:
        raise Faults(faults)
    return LoadedPolicies(documents=documents, facts=facts, unused=tuple(unused))


def _at(path: Path, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield *faults* with the whole path of their file, for whoever has to open it."""
    return (replace(fault, source=str(path)) for fault in faults)


def _policy_files(directories: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for directory in directories:
        if not directory.is_dir():
            raise Broken(f"policy directory {directory} is not there")
        found = [*directory.glob("*.yaml"), *directory.glob("communities/*.yaml")]
        for path in sorted(found):
            if path.name != FACTS_FILE:
                yield directory, path


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES + 1).decode("utf-8")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise Broken(f"{path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise Faults([Fault(str(path), 1, "", "is not UTF-8")]) from error


def _load_facts(
    config: Config, directories: Sequence[Path], lines: Lines, faults: list[Fault]
) -> Mapping[str, UpstreamFacts]:
    """Return the facts of each ACME upstream; a directory's own file adds to the shipped one."""
    descriptions: dict[str, UpstreamDescription] = {}
    for directory in dict.fromkeys([default_policies(), *directories]):
        path = directory / FACTS_FILE
        if path.is_file():
            try:
                descriptions |= parse_upstream_facts(_read(path), source=str(path))
            except Faults as found:
                faults += found.faults
    facts: dict[str, UpstreamFacts] = {}
    for name, upstream in config.upstreams.items():
        if isinstance(upstream, AcmeUpstream):
            try:
                facts[name] = facts_for(name, upstream.description, upstream.facts, descriptions)
            except UnknownDescription as error:
                near = difflib.get_close_matches(error.description, error.known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else None
                path_to = ("upstreams", name, "description")
                faults.append(lines.fault(path_to, str(error), hint))
    return facts


def _check_communities(
    config: Config, documents: Mapping[str, PolicyDocument], lines: Lines, *, has_faults: bool
) -> Iterator[Fault]:
    if has_faults:
        return  # the missing policy may be the one that is faulty
    for community in config.communities:
        if community not in documents:
            yield lines.fault(
                ("communities", community),
                f"community '{community}' has no policy, so nothing would be issued to it",
                f"write one with 'community: {community}' into a policy directory",
            )


def _check_choices(
    config: Config, document: PolicyDocument, facts: Mapping[str, UpstreamFacts]
) -> Iterator[Fault]:
    """Find upstreams and upstream profiles that a policy names and nobody has."""
    for profile in document.profiles.values():
        for choice in profile.choices:
            upstream = config.upstreams.get(choice.upstream)
            rule = choice.rule
            message = hint = None
            if upstream is None:
                message = f"no upstream is called '{choice.upstream}'"
                hint = f"configured are {', '.join(config.upstreams)}"
            elif document.community not in upstream.communities:
                message = (
                    f"upstream '{choice.upstream}' does not serve community '{document.community}'"
                )
                hint = "see its communities in the configuration"
            elif choice.upstream_profile is not None:
                known = _upstream_profiles(upstream, facts.get(choice.upstream))
                if known and choice.upstream_profile not in known:
                    message = f"{choice} is not known"
                    hint = f"known are {', '.join(sorted(known))}"
            if message is not None:
                yield Fault(rule.source, rule.line, rule.path, message, hint)


def _upstream_profiles(
    upstream: BuiltinUpstream | AcmeUpstream, facts: UpstreamFacts | None
) -> frozenset[str]:
    if isinstance(upstream, BuiltinUpstream):
        return frozenset(upstream.profiles)
    # A CA that is described without profiles may have some all the same.
    return frozenset(facts.profiles) if facts is not None else frozenset()
