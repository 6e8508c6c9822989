"""Policy files made into the policies that are in force, and held against the configuration.

A community without a policy, a policy that names an upstream which is not there, a case that fails:
found before anything starts, and before a running broker takes a changed set.  What the files mean
is ``policy``'s affair; where they lie is known to ``policy_files``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

from broker.config.model import Config
from broker.config.policy_files import read_policy_files
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.config.workload_checks import check_workload_budgets
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.policy_ports import LoadedPolicies, PolicyTexts
from broker.policy.case_runs import run_cases
from broker.policy.decisions import UpstreamFacts
from broker.policy.document import PolicyDocument
from broker.policy.manifest import Seal, parse_verify_key, verify_bundle
from broker.policy.parsing import MAX_FAULTS, ParsedFiles, parse_files
from broker.policy.policy_set import PolicySet, join_policy_files
from broker.policy.rules import Rule
from broker.policy.upstream_facts import (
    UnknownDescription,
    UpstreamDescription,
    facts_for,
    parse_upstream_facts,
)
from broker.policy.yamlfile import Fault, Faults, Lines

__all__ = [
    "Beside",
    "LoadedPolicies",
    "ParsedFiles",
    "default_policies",
    "join_policies",
    "load_policies",
    "made_of",
    "parse_files",
    "policy_directories",
    "read_now",
    "shipped_descriptions",
    "verify_texts",
]

FACTS_FILE: Final = "upstreams.yaml"
"""The file of a policy directory that describes upstreams."""

READ_TRIES: Final = 20
"""How often files are read that change while they are read, before that is told."""

_PACKAGE: Final = Path(__file__).resolve().parents[1]


def default_policies() -> Path:
    """Return the directory of the policies that came with the broker.

    In a wheel they lie beside the code, in a clone beside the package.
    """
    installed = _PACKAGE / "default_policies"
    return installed if installed.is_dir() else _PACKAGE.parent / "policies"


def policy_directories(config: Config) -> tuple[Path, ...]:
    """Return the directories that policy files are read from."""
    return config.policies or (default_policies(),)


def load_policies(config: Config, lines: Lines | None = None) -> LoadedPolicies:
    """Return the policies of the configured directories; *lines* places faults of *config*.

    Raises:
        Broken: A directory or file cannot be read.
        Faults: All that is wrong with any of the files, or between them and *config*.
    """
    return made_of(config, read_now(config), lines)


def made_of(config: Config, texts: PolicyTexts, lines: Lines | None = None) -> LoadedPolicies:
    """Return the policies that *texts* are.

    Raises:
        Faults: All that is wrong with them, or between them and *config*.
    """
    seal = verify_texts(config, texts)
    beside = Beside() if lines is None else Beside(lines=lines)
    return join_policies(config, texts, parse_files(texts.files), seal, beside)


def read_now(config: Config) -> PolicyTexts:
    """Return the files as they lie there, read again while somebody changes them.

    Raises:
        Broken: They cannot be read, or do not come to rest.
        Faults: What cannot be read of them.
    """
    for _ in range(READ_TRIES):
        try:
            return read_policy_files(policy_directories(config))
        except Unreachable:
            continue
    raise Broken("policy files change all the time, so that they were not read")


# ------------------------------------------------------------------------- from texts to policies


def verify_texts(config: Config, texts: PolicyTexts) -> Seal | None:
    """Return what the set's signatures prove; None where none are demanded.

    Raises:
        Faults: They do not prove what the configuration demands: nothing of it may be parsed.
    """
    wanted = config.policy.bundle
    if wanted is None:
        return None
    try:
        return verify_bundle(
            texts.files,
            texts.bundle,
            keys={one.name: parse_verify_key(one.key) for one in wanted.signers},
            needed=wanted.needed,
            audience=wanted.audience,
        )
    except Faults as found:
        raise Faults([_placed(fault, texts) for fault in found.faults]) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a set of files is held against, beside the configuration."""

    lines: Lines = field(default_factory=lambda: Lines("configuration", {}))
    """Places faults of the configuration."""
    earlier: LoadedPolicies | None = None
    """What is in force: documents that stay the same are kept."""
    today: date | None = None
    """With it a rule that is new and over already is a fault."""


def join_policies(
    config: Config,
    texts: PolicyTexts,
    parsed: ParsedFiles,
    seal: Seal | None,
    beside: Beside | None = None,
) -> LoadedPolicies:
    """Return the policies of a set whose files have been parsed.

    Raises:
        Faults: All that is wrong with the files, or between them and *config*.
    """
    beside = beside or Beside()
    whole, documents, faults = _joined(config, parsed, beside)
    descriptions = {**shipped_descriptions(), **({} if whole is None else whole.descriptions)}
    facts = _facts(config, descriptions, beside.lines, faults)
    faults += _check_communities(config, documents, beside.lines, has_faults=bool(faults))
    for document in documents.values():
        faults += _check_choices(config, document, facts)
    if whole is None or faults:
        raise _told(faults, texts)
    rules = whole.rules
    faults += _check_rules(config, rules)
    faults += check_workload_budgets(config, documents, beside.lines)
    results = run_cases(whole.documents.values(), whole.cases.values(), descriptions)
    faults += [
        Fault(result.source, result.line, f"case '{result.name}'", difference)
        for result in results
        for difference in result.differences
    ]
    if faults:
        raise _told(faults, texts)
    return LoadedPolicies(
        documents={n: replace(one, set_sha256=texts.sha256) for n, one in documents.items()},
        facts=facts,
        unused=_unused(config, whole, texts),
        texts=texts,
        seal=seal,
        whole=whole,
        cases=len(results),
        rules=len(rules),
    )


def _joined(
    config: Config, parsed: ParsedFiles, beside: Beside
) -> tuple[PolicySet | None, dict[str, PolicyDocument], list[Fault]]:
    """Return the set, the documents of configured communities, and what is wrong so far."""
    faults = list(parsed.faults)
    earlier = None if beside.earlier is None else beside.earlier.whole
    try:
        whole = join_policy_files(parsed.made, earlier=earlier, today=beside.today)
    except Faults as found:
        # Beside a file that is faulty itself others miss what it would have said.
        return None, {}, faults or list(found.faults)
    documents = {n: made for n, made in whole.documents.items() if n in config.communities}
    return whole, documents, faults


def _told(faults: Sequence[Fault], texts: PolicyTexts) -> Faults:
    return Faults([_placed(fault, texts) for fault in faults[:MAX_FAULTS]])


def _unused(config: Config, whole: PolicySet, texts: PolicyTexts) -> tuple[Path, ...]:
    """Return the files of policies whose community is not configured."""
    if config.policies is None:  # the shipped samples wait for theirs
        return ()
    strangers = (made for name, made in whole.documents.items() if name not in config.communities)
    return tuple(Path(texts.places.get(made.source, made.source)) for made in strangers)


def _facts(
    config: Config,
    descriptions: Mapping[str, UpstreamDescription],
    lines: Lines,
    faults: list[Fault],
) -> dict[str, UpstreamFacts]:
    facts: dict[str, UpstreamFacts] = {}
    for name, upstream in config.upstreams.items():
        if not isinstance(upstream, AcmeUpstream):
            continue
        try:
            facts[name] = facts_for(name, upstream.description, upstream.facts, descriptions)
        except UnknownDescription as error:
            near = difflib.get_close_matches(error.description, error.known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else None
            faults.append(lines.fault(("upstreams", name, "description"), str(error), hint))
    return facts


@cache
def shipped_descriptions() -> Mapping[str, UpstreamDescription]:
    """Return what the broker came with about CAs."""
    path = default_policies() / FACTS_FILE
    return parse_upstream_facts(path.read_text("utf-8"), source=str(path))


def _placed(fault: Fault, texts: PolicyTexts) -> Fault:
    """Return *fault* with the whole path of its file, for whoever has to open it."""
    return replace(fault, source=texts.places.get(fault.source, fault.source))


# ------------------------------------------------------------------------ against the configuration


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


def _check_rules(config: Config, rules: Sequence[Rule]) -> Iterator[Fault]:
    """Find upstreams that a rule names and nobody has."""
    for rule in rules:
        named = {name for quota in rule.quotas for name in quota.upstreams or ()}
        named |= rule.upstreams or frozenset()
        for upstream in sorted(named - config.upstreams.keys()):
            ref = rule.ref
            hint = f"configured are {', '.join(config.upstreams)}"
            yield Fault(ref.source, ref.line, ref.path, f"no upstream is called '{upstream}'", hint)


def _upstream_profiles(
    upstream: BuiltinUpstream | AcmeUpstream, facts: UpstreamFacts | None
) -> frozenset[str]:
    if isinstance(upstream, BuiltinUpstream):
        return frozenset(upstream.profiles)
    # A CA that is described without profiles may have some all the same.
    return frozenset(facts.profiles) if facts is not None else frozenset()
