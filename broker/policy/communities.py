"""How a community lets a requester show that a name is theirs.

One of the challenges that it offers, or a rule that trusts the requester without any.  Which
trust anchors a community has will belong here as well.
"""

from __future__ import annotations

from broker.policy.decisions import EabGrant, Requirement
from broker.policy.document import PolicyDocument, Profile, TrustedRule
from broker.protocol.challenges import is_challenge_for
from broker.protocol.identifiers import Identifier

__all__ = ["grant_for", "requirement_for"]


def grant_for(
    document: PolicyDocument, profile: Profile, eab: EabGrant | None, identifier: Identifier
) -> TrustedRule | None:
    """Return the rule that gives *identifier* to this requester without a challenge, if any."""
    if eab is None:
        return None
    for trusted in document.trusted:
        if (
            _is_meant(trusted, eab)
            and profile.name in trusted.profiles
            and (trusted.wildcards or not identifier.is_wildcard)
            and trusted.names.covering(identifier.value) is not None
        ):
            return trusted
    return None


def _is_meant(trusted: TrustedRule, eab: EabGrant) -> bool:
    """Return whether the rule is about the holder of this key, or about this node."""
    if eab.node is not None:
        return trusted.nodes.covering(eab.node) is not None
    return eab.key_id in trusted.eab


def requirement_for(
    document: PolicyDocument, profile: Profile, eab: EabGrant | None, identifier: Identifier
) -> Requirement | None:
    """Return what *identifier* needs before it is authorized; None if nothing offered will do."""
    grant = grant_for(document, profile, eab, identifier)
    if grant is not None:
        return Requirement(challenges=(), granted_by=grant.rule)
    offered = dict.fromkeys(document.challenges)
    fitting = tuple(kind for kind in offered if is_challenge_for(kind, identifier))
    return Requirement(challenges=fitting) if fitting else None
