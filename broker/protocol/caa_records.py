"""CAA records to publish: those that keep every issuer out but one account at one CA.

RFC 8659 has the records, RFC 8657 the two parameters.  What others have published is read and
judged in ``caa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.protocol.caa import CaaIssuer, CaaOutcome, CaaRecord, CaaSeen, judge_caa
from broker.protocol.identifiers import Identifier

__all__ = ["check_guarded", "guarding_records", "zone_line"]

NOBODY: Final = ";"
"""The value by which a property allows no issuer (RFC 8659 §4.2)."""

NAME_COLUMN: Final = 32
"""Width of the name in a zone file's line, in characters."""


def guarding_records(
    *,
    identities: Sequence[str],
    account_uri: str | None,
    methods: Sequence[str],
    wildcard_methods: Sequence[str],
    iodef: str | None = None,
) -> tuple[CaaRecord, ...]:
    """Return the records under which only this account at this CA is issued certificates.

    *methods* are those that we answer for names, *wildcard_methods* those for wildcards; where
    there are none of the latter, nobody may issue wildcards at all.  A CA that goes by several
    identities gets a record for each, since it may look for any of them.
    """
    records = [
        CaaRecord(0, "issue", _value(identity, account_uri, methods)) for identity in identities
    ]
    if not wildcard_methods:
        records.append(CaaRecord(0, "issuewild", NOBODY))
    elif set(wildcard_methods) != set(methods):
        records += [
            CaaRecord(0, "issuewild", _value(identity, account_uri, wildcard_methods))
            for identity in identities
        ]
    if iodef is not None:
        records.append(CaaRecord(0, "iodef", iodef))
    return tuple(records)


def _value(identity: str, account_uri: str | None, methods: Sequence[str]) -> str:
    parts = [identity]
    if account_uri is not None:
        parts.append(f"accounturi={account_uri}")
    if methods:
        parts.append(f"validationmethods={','.join(sorted(methods))}")
    return "; ".join(parts)


def zone_line(owner: str, record: CaaRecord) -> str:
    """Return the record as a zone file has it (RFC 8659 §4.1.1)."""
    value = record.value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{owner:<{NAME_COLUMN}} IN CAA {record.flags} {record.tag} "{value}"'


def check_guarded(seen: CaaSeen, issuer: CaaIssuer) -> Sequence[str]:
    """Return a sentence for each way in which what was *seen* is not what keeps others out.

    *issuer* is our account at its CA, with the methods that we answer.
    """
    ours = judge_caa(seen, issuer)
    if ours.outcome is not CaaOutcome.PERMITS:
        known = {
            CaaOutcome.ABSENT: f"{ours.sentence}, so every CA may issue",
            CaaOutcome.FORBIDS: f"{ours.sentence}, so our own CA may not issue",
        }
        return (known.get(ours.outcome, ours.sentence),)
    found = []
    if _would_issue(seen, CaaIssuer(identities=frozenset())):
        found.append(f"CAA at {seen.found_at} lets every CA issue")
    name: Identifier = seen.identifier
    stranger = CaaIssuer(identities=issuer.identities, methods={name: issuer.methods[name]})
    if _would_issue(seen, stranger):
        found.append(
            f"CAA at {seen.found_at} has no accounturi, so every account at the CA may order"
        )
    by_other_means = CaaIssuer(
        identities=issuer.identities,
        account_uri=issuer.account_uri,
        methods={name: frozenset({"no-such-method"})},
    )
    if _would_issue(seen, by_other_means):
        found.append(
            f"CAA at {seen.found_at} has no validationmethods, so proof by any method is enough"
        )
    return tuple(found)


def _would_issue(seen: CaaSeen, issuer: CaaIssuer) -> bool:
    return judge_caa(seen, issuer).outcome in (CaaOutcome.PERMITS, CaaOutcome.ABSENT)
