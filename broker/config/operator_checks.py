"""What has to fit between the people who operate the broker and the rest of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from broker.config.model import Config
from broker.config.operators import Operators
from broker.policy.roles import EVERYWHERE, Role, check_roles_apart
from broker.policy.yamlfile import Fault, KeyPath, Lines

__all__ = ["check_operators"]


def check_operators(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield what does not fit."""
    operators = config.operators
    if config.listen.operators is not None and not _lets_anybody_in(operators):
        yield lines.fault(
            ("listen", "operators"),
            "the operator API would let nobody in",
            "name anchors or issuers in operators",
        )
    if operators is None:
        return
    yield from _check_people(config, operators, lines)
    for name, issuer in operators.issuers.items():
        for group, roles in issuer.groups.items():
            path: KeyPath = ("operators", "issuers", name, "groups", group)
            yield from _check_roles(config, lines, path, roles)
    yield from _check_issuers(operators, lines)


def _lets_anybody_in(operators: Operators | None) -> bool:
    return operators is not None and (operators.anchors is not None or bool(operators.issuers))


def _check_people(config: Config, operators: Operators, lines: Lines) -> Iterator[Fault]:
    for name, person in operators.people.items():
        path: KeyPath = ("operators", "people", name)
        yield from _check_roles(config, lines, (*path, "roles"), person.roles)
        if person.certificates and operators.anchors is None:
            yield lines.fault(
                (*path, "certificates"),
                "certificates of people have no anchors",
                "name the roots in operators.anchors",
            )
        for place, subject in enumerate(person.tokens):
            issuer = subject.partition(":")[0]
            if issuer not in operators.issuers:
                known = ", ".join(operators.issuers) or "none"
                yield lines.fault(
                    (*path, "tokens", place),
                    f"no issuer is called '{issuer}'",
                    f"known in operators.issuers: {known}",
                )


def _check_roles(
    config: Config, lines: Lines, path: KeyPath, roles: Mapping[str, Sequence[Role]]
) -> Iterator[Fault]:
    for community in roles:
        if community != EVERYWHERE and community not in config.communities:
            near = get_close_matches(community, list(config.communities), 1)
            hint = f"did you mean '{near[0]}'?" if near else "define it in communities"
            yield lines.fault((*path, community), f"community '{community}' is not defined", hint)
    for sentence in check_roles_apart(roles):
        yield lines.fault(path, sentence, "give them to different people")


def _check_issuers(operators: Operators, lines: Lines) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, section in operators.issuers.items():
        other = seen.setdefault(section.issuer, name)
        if other != name:
            yield lines.fault(
                ("operators", "issuers", name, "issuer"),
                f"issuer {section.issuer} stands here twice, as '{other}' and '{name}'",
            )
