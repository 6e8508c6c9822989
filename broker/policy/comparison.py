"""What a renewed certificate has less of than the one that it replaces.

Pure, like the rest of policy.  What was added is nobody's loss: the checks at issuance have seen
to it.  The names of issuers change with every renewal of a public CA and break nothing; what its
verifiers trust is the top of the chain, so that is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.policy.form import Loss
from broker.protocol.certificates import Chain

__all__ = ["Lost", "compare_renewed", "top_of"]

_STRENGTHS: Final = {
    "rsa-2048": 112,
    "rsa-3072": 128,
    "rsa-4096": 152,
    "ec-p256": 128,
    "ec-p384": 192,
    "ec-p521": 256,
}
"""Security strength of each kind of key, in bits (NIST SP 800-57 §5.6.1.1)."""

_USAGE_NAMES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
}
"""Extended key usages that people know by name (RFC 5280 §4.2.1.12)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """One thing that was lost."""

    kind: Loss
    sentence: str


def compare_renewed(before: Chain, after: Chain, hold: frozenset[Loss]) -> tuple[Lost, ...]:
    """Return what *after* has less of than *before*, of the kinds in *hold*."""
    found = (*_names(before, after), *_usages(before, after), *_key(before, after))
    found = (*found, *_anchors(before, after))
    return tuple(lost for lost in found if lost.kind in hold)


def top_of(chain: Chain) -> str:
    """Return the name that a chain leads up to: the issuer of its last certificate."""
    last = chain.issuers[-1] if chain.issuers else chain.leaf
    return last.issuer


def _names(before: Chain, after: Chain) -> tuple[Lost, ...]:
    missing = sorted(str(one) for one in before.leaf.identifiers - after.leaf.identifiers)
    return (Lost(Loss.NAMES, f"names are missing: {', '.join(missing)}"),) if missing else ()


def _usages(before: Chain, after: Chain) -> tuple[Lost, ...]:
    # Without the extension a certificate is good for everything (RFC 5280 §4.2.1.12).
    was, is_ = before.leaf.extended_key_usages, after.leaf.extended_key_usages
    missing = sorted(was - is_) if is_ else []
    words = [_USAGE_NAMES.get(one, one) for one in missing]
    if is_ and not was:
        words = ["any usage"]
    words += sorted(before.leaf.key_usages - after.leaf.key_usages) if after.leaf.key_usages else []
    return (Lost(Loss.USAGES, f"usages are missing: {', '.join(words)}"),) if words else ()


def _key(before: Chain, after: Chain) -> tuple[Lost, ...]:
    was, is_ = before.leaf.key_kind, after.leaf.key_kind
    if was == is_:
        return ()
    is_same_family = was.partition("-")[0] == is_.partition("-")[0]
    if is_same_family and _STRENGTHS.get(is_, 0) >= _STRENGTHS.get(was, 0):
        return ()
    what = "a weaker key" if is_same_family else "another kind of key"
    return (Lost(Loss.KEY, f"{what}: {is_} in place of {was}"),)


def _anchors(before: Chain, after: Chain) -> tuple[Lost, ...]:
    was, is_ = top_of(before), top_of(after)
    if was == is_:
        return ()
    return (Lost(Loss.ANCHORS, f"other anchors: it leads to '{is_}', not to '{was}'"),)
