"""Policy text made into the frozen document that decides.

Every rule keeps the place it came from, so that a refusal can name it.  What no rule allows is
refused: a list that is empty or missing allows nothing.  Rules only narrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from broker.policy.addresses import AddressPattern, IpNetwork
from broker.policy.decisions import RuleRef
from broker.policy.form import (
    CaaMode,
    ChoiceForm,
    KeyUsage,
    Loss,
    NodeKey,
    OnNodesForm,
    PolicyForm,
    ProfileForm,
    TrustedForm,
    check_references,
)
from broker.policy.names import MailPattern, NamePattern, Pattern, PatternSet
from broker.policy.rule_index import NO_RULES, RuleBook, RuleIndex
from broker.policy.rules import Approval, approval_of, compile_rules
from broker.policy.words import USAGE_OIDS
from broker.policy.yamlfile import KeyPath, Lines, load_model, path_text
from broker.protocol.challenges import ChallengeType

__all__ = [
    "USAGE_OIDS",
    "Choice",
    "NameRules",
    "OnNodes",
    "PolicyDocument",
    "Profile",
    "RetireRule",
    "TrustedRule",
    "parse_policy",
]

KEY_USAGE_NAMES: Final[Mapping[KeyUsage, str]] = {
    KeyUsage.DIGITAL_SIGNATURE: "digitalSignature",
    KeyUsage.KEY_ENCIPHERMENT: "keyEncipherment",
    KeyUsage.KEY_AGREEMENT: "keyAgreement",
}
"""Key usages (RFC 5280 §4.2.1.3)."""


class NameRules:
    """Name patterns, each with the place of its rule."""

    __slots__ = ("_patterns", "ref", "rules")

    def __init__(self, ref: RuleRef, patterns: Sequence[Pattern], rules: Sequence[RuleRef]) -> None:
        self.ref = ref
        """The list itself, for saying that none of its rules speaks of a name."""
        self.rules = tuple(rules)
        self._patterns = PatternSet(patterns)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the patterns as they are written."""
        return tuple(str(one) for one in self._patterns.patterns)

    @property
    def bases(self) -> tuple[str, ...]:
        """Return the name at which, or below which, each rule speaks; empty for every name."""
        patterns = self._patterns.patterns
        return tuple(dict.fromkeys(one.base for one in patterns if isinstance(one, NamePattern)))

    @property
    def networks(self) -> tuple[IpNetwork, ...]:
        """Return the network of each rule that speaks of addresses."""
        patterns = self._patterns.patterns
        found = [one.network for one in patterns if isinstance(one, AddressPattern)]
        return tuple(dict.fromkeys(found))

    @property
    def has_mail(self) -> bool:
        """Return whether any rule speaks of e-mail."""
        return self._patterns.has_mail

    @property
    def mail(self) -> tuple[MailPattern, ...]:
        """Return each rule that speaks of addresses of e-mail."""
        return tuple(one for one in self._patterns.patterns if isinstance(one, MailPattern))

    def covering(self, name: str) -> RuleRef | None:
        """Return the first rule that covers *name*, or None."""
        place = self._patterns.covering(name)
        return None if place is None else self.rules[place]

    def networks_holding(self, address: str) -> tuple[IpNetwork, ...]:
        """Return the network of every rule that holds *address*, in order."""
        return self._patterns.networks_holding(address)

    def touching(self, name: str) -> tuple[RuleRef, ...]:
        """Return every rule that touches *name*, in order."""
        return tuple(self.rules[place] for place in self._patterns.touching(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireRule:
    """What policy says of certificates that are longer than the cap and accepted all the same."""

    grace: timedelta
    revokes_unreplaced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One upstream that a profile may take, with one of its profiles."""

    upstream: str
    upstream_profile: str | None
    rule: RuleRef
    retire: RetireRule | None = None
    """None: a lifetime past the cap is refused."""

    def __str__(self) -> str:
        profile = self.upstream_profile
        suffix = f" profile '{profile}'" if profile is not None else ""
        return f"upstream '{self.upstream}'{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNodes:
    """How certificates are renewed at nodes with an agent."""

    key: NodeKey = NodeKey.NEW
    keep_previous_key: timedelta = timedelta(days=30)
    challenges: tuple[ChallengeType, ...] = ()
    """What the node may answer itself; the community has to offer it too."""
    hold: frozenset[Loss] = frozenset(Loss)
    """What must not be lost without a person's word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named class of issuance."""

    name: str
    description: str
    rule: RuleRef
    cap: timedelta | None
    cap_rule: RuleRef
    usages: frozenset[str]
    """Extended key usages, as dotted OIDs."""
    key_usages: frozenset[str]
    """Names of RFC 5280 §4.2.1.3."""
    choices: tuple[Choice, ...]
    names: NameRules | None
    csr_extensions: frozenset[str]
    certificate_extensions: frozenset[str]
    must_staple: bool
    subject: frozenset[str]
    renew_at: float | None = None
    """Share of the lifetime after which renewal is suggested; None: nothing of its own."""
    same_csr_within: timedelta | None = None
    """How long the same CSR is answered with the certificate that it brought; None: not at all."""
    on_nodes: OnNodes = OnNodes()
    usages_rule: RuleRef | None = None
    """The rule that narrowed the usages last; None: they are the profile's own."""
    rule_caps: tuple[tuple[timedelta, RuleRef], ...] = ()
    """Caps of the rules that speak of an order; a profile as it is written has none."""
    kept_out: Mapping[str, RuleRef] = field(default_factory=dict)
    """Upstreams that the rules that speak of an order keep out."""
    unbudgeted: frozenset[str] = frozenset()
    """Upstreams that no quota per workload counts, where a workload of a cluster asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRule:
    """Who may have which names without a challenge."""

    rule: RuleRef
    eab: frozenset[str]
    nodes: PatternSet
    """Patterns of the names of nodes that it is about."""
    names: NameRules
    wildcards: bool
    profiles: frozenset[str]
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """What one community may be issued."""

    source: str
    sha256: str
    """Of its text, in UTF-8, in lower case hex; where it shares rules, of one line for each of the
    files."""
    community: str
    description: str
    allow: NameRules
    deny: NameRules
    wildcards: bool
    wildcards_rule: RuleRef
    challenges: tuple[ChallengeType, ...]
    challenges_rule: RuleRef
    key_kinds: tuple[str, ...]
    keys_rule: RuleRef
    cap: timedelta
    cap_rule: RuleRef
    name_caps: NameRules
    cap_by_rule: Mapping[RuleRef, timedelta]
    """The cap of each rule in ``name_caps``."""
    profiles: Mapping[str, Profile]
    profiles_rule: RuleRef
    default_profile: str | None
    trusted: tuple[TrustedRule, ...]
    allow_private_names: bool
    private_names: NameRules
    ct_rule: RuleRef
    caa: CaaMode = CaaMode.REPORT
    rules: RuleBook = NO_RULES
    """Its own rules and those that it shares with other communities."""
    account_approval: Approval | None = None
    """People who let accounts in that bring no binding; None: nobody has to."""
    set_sha256: str = ""
    """Of the whole set that it is in force with; empty where it stands alone, as in tools."""

    @property
    def policy_sha256(self) -> str:
        """Return what a decision records, and its files can be found by: what other files say,
        such as facts about CAs, decides as well."""
        return self.set_sha256 or self.sha256

    def profile(self, name: str | None) -> Profile | None:
        """Return the profile of that name, the default one for None, or None if there is none."""
        wanted = self.default_profile if name is None else name
        return None if wanted is None else self.profiles.get(wanted)

    @property
    def upstreams(self) -> frozenset[str]:
        """Return the names of all upstreams that any profile may take."""
        return frozenset(c.upstream for p in self.profiles.values() for c in p.choices)


def parse_policy(text: str, *, source: str) -> PolicyDocument:
    """Return the document that *text* describes; *source* names it in rules and faults.

    Raises:
        Faults: Everything that is wrong with it.  Keep the document that was in force.
    """
    form, lines = load_model(text, source, PolicyForm, cross_check=check_references)
    return _Compiler(lines).document(form, hashlib.sha256(text.encode("utf-8")).hexdigest())


class _Compiler:
    """Gives each rule of a form its place."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def _ref(self, *path: str | int) -> RuleRef:
        return RuleRef(self._lines.source, self._lines.line(path), path_text(path))

    def _rules(self, path: KeyPath, patterns: Sequence[Pattern]) -> NameRules:
        refs = [self._ref(*path, place) for place in range(len(patterns))]
        return NameRules(self._ref(*path), patterns, refs)

    def document(self, form: PolicyForm, sha256: str) -> PolicyDocument:
        """Return the document of *form*."""
        patterns, caps = self._name_caps(form)
        profiles = {name: self._profile(name, made) for name, made in form.profiles.items()}
        return PolicyDocument(
            source=self._lines.source,
            sha256=sha256,
            community=form.community,
            description=form.description or "",
            allow=self._rules(("names", "allow"), form.names.allow),
            deny=self._rules(("names", "deny"), form.names.deny),
            wildcards=form.names.wildcards,
            wildcards_rule=self._ref("names", "wildcards"),
            challenges=form.challenges,
            challenges_rule=self._ref("challenges"),
            key_kinds=tuple(str(kind) for kind in form.keys.allow),
            keys_rule=self._ref("keys", "allow"),
            cap=form.cap,
            cap_rule=self._ref("cap"),
            name_caps=NameRules(self._ref("caps"), patterns, list(caps)),
            cap_by_rule=MappingProxyType(caps),
            profiles=MappingProxyType(profiles),
            profiles_rule=self._ref("profiles"),
            default_profile=form.default_profile,
            trusted=tuple(self._trusted(n, made) for n, made in enumerate(form.trusted)),
            allow_private_names=form.ct.allow_private_names,
            private_names=self._rules(("ct", "private_names"), form.ct.private_names),
            ct_rule=self._ref("ct", "allow_private_names"),
            caa=form.caa,
            rules=RuleBook([RuleIndex(compile_rules(form.rules, self._lines, ("rules",)))]),
            account_approval=approval_of(form.accounts.approval),
        )

    def _name_caps(self, form: PolicyForm) -> tuple[list[Pattern], dict[RuleRef, timedelta]]:
        patterns: list[Pattern] = []
        caps: dict[RuleRef, timedelta] = {}
        for number, made in enumerate(form.caps):
            for place, pattern in enumerate(made.names):
                patterns.append(pattern)
                caps[self._ref("caps", number, "names", place)] = made.cap
        return patterns, caps

    def _profile(self, name: str, form: ProfileForm) -> Profile:
        path = ("profiles", name)
        return Profile(
            name=name,
            description=form.description,
            rule=self._ref(*path),
            cap=form.cap,
            cap_rule=self._ref(*path, "cap"),
            usages=frozenset(USAGE_OIDS[usage] for usage in form.usages),
            key_usages=frozenset(KEY_USAGE_NAMES[usage] for usage in form.key_usages),
            choices=tuple(
                Choice(
                    upstream=choice.upstream,
                    upstream_profile=choice.profile,
                    rule=self._ref(*path, "upstreams", number),
                    retire=_retire_rule(choice),
                )
                for number, choice in enumerate(form.upstreams)
            ),
            names=None if form.names is None else self._rules((*path, "names"), form.names),
            csr_extensions=frozenset(form.csr_extensions),
            certificate_extensions=frozenset(form.certificate_extensions),
            must_staple=form.must_staple,
            subject=frozenset(form.subject),
            renew_at=form.renew_at,
            same_csr_within=form.same_csr_within,
            on_nodes=_on_nodes(form.on_nodes),
        )

    def _trusted(self, number: int, form: TrustedForm) -> TrustedRule:
        path = ("trusted", number)
        return TrustedRule(
            rule=self._ref(*path),
            eab=frozenset(form.eab),
            nodes=PatternSet(form.nodes),
            names=self._rules((*path, "names"), form.names),
            wildcards=form.wildcards,
            profiles=frozenset(form.profiles),
            because=form.because,
        )


def _retire_rule(form: ChoiceForm) -> RetireRule | None:
    if form.retire is None:
        return None
    revokes = form.retire.unreplaced == "revoke"
    return RetireRule(grace=form.retire.grace, revokes_unreplaced=revokes)


def _on_nodes(form: OnNodesForm) -> OnNodes:
    return OnNodes(
        key=form.key,
        keep_previous_key=form.keep_previous_key,
        challenges=form.challenges,
        hold=frozenset(form.hold),
    )
