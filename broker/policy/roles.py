"""Roles of the people who operate the broker, and which of them one person never combines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

__all__ = ["APART", "EVERYWHERE", "Role", "check_roles_apart"]

EVERYWHERE: Final = "*"
"""Stands for all communities, and for what belongs to none: upstreams, CA, backup, policy."""


class Role(StrEnum):
    """What a person may be in a community."""

    VIEWER = "viewer"
    """Sees, and changes nothing."""
    OPERATOR = "operator"
    """Keeps it going: renews, revokes, lets nodes come, replaces, freezes."""
    APPROVER = "approver"
    """Decides about people's requests: approves, denies, suspends, withdraws."""
    SECURITY = "security"
    """Owns the policy: loads, signs, freezes."""
    AUDITOR = "auditor"
    """Reads the audit, and has it exported."""
    ADMISSION = "admission"
    """Asks what pods would get, and nothing else: for programs that admit them to a cluster."""


APART: Final = frozenset({Role.OPERATOR, Role.APPROVER, Role.SECURITY})
"""Of these a person holds at most one in any community: whoever writes policy cannot approve, and
whoever operates can do neither."""


def check_roles_apart(roles: Mapping[str, Collection[Role]]) -> Sequence[str]:
    """Return a sentence for each community in which *roles* combines what has to be apart."""
    everywhere = set(roles.get(EVERYWHERE, ()))
    findings = []
    for community, held in roles.items():
        combined = sorted(APART & (everywhere | set(held)))
        if len(combined) > 1:
            where = "everywhere" if community == EVERYWHERE else f"in community '{community}'"
            findings.append(f"roles {' and '.join(combined)} are not held by one person {where}")
    return findings
