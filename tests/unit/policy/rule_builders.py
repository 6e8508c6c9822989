"""Rules for the tests of policy: as a file says them, and asked about an order."""

from __future__ import annotations

from typing import Any

from broker.policy.decisions import ClientCertificate, NewOrderFacts, Requester
from broker.policy.document import PolicyDocument
from broker.policy.rules import Rule
from tests.unit.policy.builders import new_order, policy


def rule(**changes: Any) -> dict[str, Any]:
    """Return a rule as a file says it; a key with an underscore behind it is a word of Python."""
    made = {"name": "one", "because": "a test says so", **changes}
    return {key.removesuffix("_"): value for key, value in made.items() if value is not None}


def ruled(*rules: dict[str, Any], **changes: Any) -> PolicyDocument:
    """Return a policy with these rules."""
    return policy(rules=list(rules), **changes)


def compiled(**changes: Any) -> Rule:
    """Return one rule as it decides."""
    return ruled(rule(**changes)).rules.rules[0]


def asked_by(*names: str, **requester: Any) -> NewOrderFacts:
    """Return the facts of a newOrder by such a requester."""
    return new_order(*names, requester=Requester(**requester))


def shown(*names: str) -> ClientCertificate:
    """Return a client certificate with these names."""
    return ClientCertificate(fingerprint="ab" * 32, names=names)
