"""A whole set of policy files: read one by one, joined into what each community decides by.

Reading a file knows nothing of the others and gives something that can be handed to another
process; joining is quick and tells what is wrong between files.  Which community a shared file
speaks for is written in that file: a community names no other file, so there is no include that
could lead in a circle.  Files come as texts, under names that faults and rules show.
"""

from __future__ import annotations

import copyreg
import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Any, Final

from broker.policy.case_runs import CaseFile, parse_case_file
from broker.policy.document import PolicyDocument, parse_policy
from broker.policy.rule_faults import check_days, check_rules, check_shared
from broker.policy.rule_form import SharedRulesForm
from broker.policy.rule_index import RuleBook, RuleIndex
from broker.policy.rules import Rule, compile_rules
from broker.policy.upstream_facts import UpstreamDescription, parse_upstream_facts
from broker.policy.yamlfile import Fault, Faults, load_model

__all__ = [
    "MAX_FILES",
    "PolicyFile",
    "PolicySet",
    "SharedRules",
    "join_policy_files",
    "parse_policy_file",
    "parse_policy_set",
]

MAX_FILES: Final = 5_000
"""Most files of one set: a thousand communities with cases, five times over."""

MAX_RULES: Final = 100_000
"""Most rules of one set: ten times what decisions are measured with."""

KINDS: Final = ("Policy", "SharedRules", "UpstreamFacts", "PolicyCases")
"""What a file of a set may be."""

_KIND: Final = re.compile(r"^kind:[ \t]*[\"']?([A-Za-z]+)[\"']?[ \t]*(?:#.*)?\r?$", re.M | re.A)
_JSON_KIND: Final = re.compile(
    r"\"kind\":[ \t]*\"(Policy|SharedRules|UpstreamFacts|PolicyCases)\"", re.A
)


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)


def _reduced(proxy: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return _read_only, (dict(proxy),)


copyreg.pickle(MappingProxyType, _reduced)
# A file is read in one process and joined in another, and Python pickles no read-only mapping.


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRules:
    """Rules that several communities share."""

    source: str
    communities: frozenset[str] | None
    """None: all."""
    places: Mapping[str, int]
    """The line in which each community is named."""
    rules: tuple[Rule, ...]

    def is_for(self, community: str) -> bool:
        """Return whether the rules hold for *community*."""
        return self.communities is None or community in self.communities


Content = PolicyDocument | SharedRules | Mapping[str, UpstreamDescription] | CaseFile
"""What a file says, by its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """One file, read: its digest and what it says.  It can be pickled."""

    name: str
    sha256: str
    """Of the text, in UTF-8, in lower case hex."""
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Everything that a set of policy files says."""

    documents: Mapping[str, PolicyDocument]
    """By community."""
    descriptions: Mapping[str, UpstreamDescription]
    cases: Mapping[str, CaseFile]
    """By file."""
    files: Mapping[str, PolicyFile]
    """By name."""
    sha256: str
    """Of one line ``DIGEST  NAME`` for each file, sorted by name."""
    shared: Mapping[str, RuleIndex]
    """The rules that all communities share, under the digest of their files."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Return the SHA-256 of each file by its name."""
        return {name: file.sha256 for name, file in self.files.items()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return every rule once, sorted."""
        return tuple(sorted(_rules_of(self.files.values()), key=lambda rule: rule.place))


def parse_policy_set(
    files: Mapping[str, str], *, earlier: PolicySet | None = None, today: date | None = None
) -> PolicySet:
    """Return what *files* say, by name; those that *earlier* has read already are not read again.

    Raises:
        Faults: All that is wrong with any file, or between them.  Keep the set that was in force.
    """
    faults: list[Fault] = []
    if len(files) > MAX_FILES:
        raise Faults(
            [Fault("policies", 1, "", f"are {len(files)} files, the limit is {MAX_FILES}")]
        )
    read: dict[str, PolicyFile] = {}
    for name in sorted(files):
        known = None if earlier is None else earlier.files.get(name)
        if known is not None and known.sha256 == _digest(files[name]):
            read[name] = known
            continue
        try:
            read[name] = parse_policy_file(name, files[name])
        except Faults as found:
            faults += found.faults
    if faults:
        raise Faults(faults)
    return join_policy_files(read, earlier=earlier, today=today)


def parse_policy_file(name: str, text: str) -> PolicyFile:
    """Return what *text* says, which is the file *name*.

    Raises:
        Faults: Everything that is wrong with it alone.
    """
    found = _KIND.search(text) or _JSON_KIND.search(text)
    kind = None if found is None else found[1]
    if found is not None and kind not in KINDS:
        line = text.count("\n", 0, found.start()) + 1
        near = difflib.get_close_matches(found[1], KINDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else None
        message = f"expected {', '.join(KINDS)}, found '{found[1][:40]}'"
        raise Faults([Fault(name, line, "kind", message, hint)])
    content: Content
    if kind == "SharedRules":
        content = _parse_shared(text, name)
    elif kind == "UpstreamFacts":
        content = parse_upstream_facts(text, source=name)
    elif kind == "PolicyCases":
        content = parse_case_file(text, source=name)
    else:
        # Also a file without a kind: its other faults are told with that.
        content = parse_policy(text, source=name)
    return PolicyFile(name=name, sha256=_digest(text), content=content)


def _parse_shared(text: str, source: str) -> SharedRules:
    form, lines = load_model(text, source, SharedRulesForm)
    listed = () if form.communities == "all" else form.communities
    return SharedRules(
        source=source,
        communities=None if form.communities == "all" else frozenset(listed),
        places={name: lines.line(("communities", n)) for n, name in enumerate(listed)},
        rules=compile_rules(form.rules, lines, ("rules",)),
    )


def join_policy_files(
    files: Mapping[str, PolicyFile],
    *,
    earlier: PolicySet | None = None,
    today: date | None = None,
) -> PolicySet:
    """Return what *files* say together; documents of *earlier* that are the same are kept.

    With *today*, a rule that is new and over is a fault.

    Raises:
        Faults: All that is wrong between them.
    """
    read = {name: files[name] for name in sorted(files)}
    joining = _Joining(read, earlier)
    documents = joining.documents()
    faults = joining.faults
    if today is not None:
        known = {} if earlier is None else {rule.name: rule for rule in earlier.rules}
        faults += check_days(_rules_of(read.values()), known, today)
    if faults:
        raise Faults(list(dict.fromkeys(faults)))
    descriptions: dict[str, UpstreamDescription] = {}
    for file in read.values():
        if isinstance(file.content, Mapping):
            descriptions |= file.content
    cases = {n: f.content for n, f in read.items() if isinstance(f.content, CaseFile)}
    return PolicySet(
        documents=MappingProxyType(documents),
        descriptions=MappingProxyType(descriptions),
        cases=MappingProxyType(cases),
        files=MappingProxyType(read),
        sha256=_digest_of(read.values()),
        shared=joining.shared_by_all,
    )


class _Joining:
    """Puts the shared rules to the policies that they hold for."""

    def __init__(self, files: Mapping[str, PolicyFile], earlier: PolicySet | None) -> None:
        self._earlier = earlier
        self.faults: list[Fault] = []
        self._own: dict[str, PolicyFile] = {}
        self._shared: list[tuple[PolicyFile, SharedRules]] = []
        for file in files.values():
            if isinstance(file.content, PolicyDocument):
                self._take_policy(file, file.content)
            elif isinstance(file.content, SharedRules):
                self._shared.append((file, file.content))
        self._check_sizes(files)
        for _, shared in self._shared:
            self._check_communities(shared)
        for_all = [(file, shared) for file, shared in self._shared if shared.communities is None]
        self._all_digest = _digest_of(file for file, _ in for_all)
        known = None if earlier is None else earlier.shared.get(self._all_digest)
        index = known or RuleIndex(rule for _, shared in for_all for rule in shared.rules)
        self.shared_by_all = MappingProxyType({self._all_digest: index})
        self._index = index

    def _take_policy(self, file: PolicyFile, document: PolicyDocument) -> None:
        first = self._own.setdefault(document.community, file)
        if first is not file:
            message = f"community '{document.community}' has a policy already: {first.name}"
            self.faults.append(Fault(file.name, 1, "community", message))

    def _check_sizes(self, files: Mapping[str, PolicyFile]) -> None:
        count = sum(1 for _ in _rules_of(files.values()))
        if count > MAX_RULES:
            message = f"have {count} rules, the limit is {MAX_RULES}"
            self.faults.append(Fault("policies", 1, "rules", message))

    def _check_communities(self, shared: SharedRules) -> None:
        for community in sorted(shared.communities or ()):
            if community not in self._own:
                message = f"there is no policy of a community '{community}'"
                hint = f"known are {', '.join(sorted(self._own)) or 'none'}"
                line = shared.places.get(community, 1)
                self.faults.append(Fault(shared.source, line, "communities", message, hint))

    def documents(self) -> dict[str, PolicyDocument]:
        """Return the document of each community with all its rules."""
        made = {community: self._document(community) for community in sorted(self._own)}
        for _, shared in self._shared:
            meant = [one for name, one in made.items() if shared.is_for(name)]
            for rule in shared.rules if meant else ():
                self.faults += check_shared(rule, meant)
        return made

    def _document(self, community: str) -> PolicyDocument:
        file = self._own[community]
        content = file.content
        if not isinstance(content, PolicyDocument):
            raise TypeError(f"{file.name} is no policy")
        sharing = [(f, shared) for f, shared in self._shared if shared.is_for(community)]
        if not sharing:
            sha256 = file.sha256
        else:
            sha256 = _digest_of([file, *(shared_file for shared_file, _ in sharing)])
        known = None if self._earlier is None else self._earlier.documents.get(community)
        if known is not None and (known.sha256, known.source) == (sha256, content.source):
            return known
        listed = [s.rules for _, s in sharing if s.communities is not None]
        own = content.rules.indexes
        if listed:
            own = (RuleIndex(r for rules in (content.rules.rules, *listed) for r in rules),)
        document = replace(content, sha256=sha256, rules=RuleBook([*own, self._index]))
        self.faults += check_rules(document)
        return document


def _rules_of(files: Iterable[PolicyFile]) -> Iterable[Rule]:
    for file in files:
        if isinstance(file.content, PolicyDocument):
            yield from file.content.rules.rules
        elif isinstance(file.content, SharedRules):
            yield from file.content.rules


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest_of(files: Iterable[PolicyFile]) -> str:
    lines = sorted((file.name, file.sha256) for file in files)
    return _digest("".join(f"{sha256}  {name}\n" for name, sha256 in lines))
