"""What a built-in CA consists of, read from its register, and how its issuers follow each other.

The register (``ports.CaRegister``) keeps one row a key.  Reading it is done here, and so is each
step of a rotation, as a change of those rows: prepare puts an issuer NEXT, activate makes it
CURRENT and the one before PAST, retire ends in RETIRED.  Nothing here signs or stores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.issuance.errors import Broken
from broker.issuance.records import CaMember, CaRole
from broker.upstreams.authority import Authority, IssuerSet, RetiredIssuer

__all__ = [
    "CaState",
    "activated",
    "issuing_title",
    "member_of",
    "name_with",
    "offline_root",
    "read_state",
    "retired",
    "without",
]

_LAST_NUMBER: Final = re.compile(r"^(.*?) ?([0-9]{1,6})$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaState:
    """All that is known of a built-in CA.

    Attributes:
        members: The rows that the rest was read from.
        root: The trust anchor; None while the first request waits for an offline root.
        root_key_id: The root's key, None when the root is offline.
        issuers: The issuing CAs; None until there is one.
        pending: The request that an offline root has yet to answer.
    """

    members: tuple[CaMember, ...]
    root: x509.Certificate | None = None
    root_key_id: str | None = None
    issuers: IssuerSet | None = None
    pending: CaMember | None = None

    @property
    def root_authority(self) -> Authority | None:
        """Return the root as one that can sign, None when it is offline."""
        if self.root is None or self.root_key_id is None:
            return None
        return Authority(self.root_key_id, self.root)

    def having(self, role: CaRole) -> tuple[CaMember, ...]:
        """Return the members in *role*."""
        return tuple(member for member in self.members if member.role is role)


def read_state(members: Sequence[CaMember]) -> CaState | None:
    """Return the CA that *members* are, None where there is none or none that was ever finished.

    Raises:
        Broken: A row does not hold what it should; the store was changed by something else.
    """
    made = [member for member in members if member.role is not CaRole.PLANNED]
    if not made:
        return None
    root = next((member for member in made if member.role is CaRole.ROOT), None)
    anchor = None if root is None else _certificate(root)
    pending = next((member for member in made if member.role is CaRole.REQUESTED), None)
    return CaState(
        members=tuple(members),
        root=anchor,
        root_key_id=None if root is None else root.key_id,
        issuers=_issuers(made, anchor),
        pending=pending,
    )


def member_of(ca: str, role: CaRole, authority: Authority, since: datetime) -> CaMember:
    """Return the row of a certificate whose key is here."""
    return CaMember(
        ca=ca,
        role=role,
        key_id=authority.key_id,
        subject=authority.certificate.subject.rfc4514_string(),
        certificate_der=authority.der,
        since=since,
    )


def offline_root(ca: str, certificate: x509.Certificate, since: datetime) -> CaMember:
    """Return the row of a root whose key is elsewhere."""
    return CaMember(
        ca=ca,
        role=CaRole.ROOT,
        key_id=None,
        subject=certificate.subject.rfc4514_string(),
        certificate_der=certificate.public_bytes(Encoding.DER),
        since=since,
    )


def activated(members: Sequence[CaMember], at: datetime) -> tuple[CaMember, ...]:
    """Return *members* with the next issuer as the current one, and that one past.

    Raises:
        Broken: No issuer was prepared.
    """
    follows = {CaRole.NEXT: CaRole.CURRENT, CaRole.CURRENT: CaRole.PAST}
    if not any(member.role is CaRole.NEXT for member in members):
        raise Broken("no next issuing CA is prepared; see penstock ca rotate prepare")
    return tuple(
        replace(member, role=follows[member.role], since=at) if member.role in follows else member
        for member in members
    )


def retired(members: Sequence[CaMember], key_id: str, *, at: datetime) -> tuple[CaMember, ...]:
    """Return *members* with the retiring issuer *key_id* retired."""
    return tuple(
        replace(member, role=CaRole.RETIRED, since=at)
        if member.key_id == key_id and member.role is CaRole.RETIRING
        else member
        for member in members
    )


def without(members: Sequence[CaMember], *roles: CaRole) -> tuple[CaMember, ...]:
    """Return *members* without those in one of *roles*."""
    return tuple(member for member in members if member.role not in roles)


def issuing_title(current: x509.Name, taken: Collection[str]) -> str:
    """Return the name of the issuing CA that follows *current*: the next number, not *taken*."""
    number = 1
    for one in current.get_attributes_for_oid(NameOID.COMMON_NAME):
        match = _LAST_NUMBER.fullmatch(str(one.value))
        number = int(match[2]) if match is not None else number
    while True:
        number += 1
        title = name_with(current, partial(_numbered, number)).rfc4514_string()
        if title not in taken:
            return title


def name_with(name: x509.Name, change: Callable[[str], str]) -> x509.Name:
    """Return *name* with *change* done to its common name; all its other parts stay."""

    def changed(one: x509.NameAttribute[str | bytes]) -> x509.NameAttribute[str | bytes]:
        if one.oid != NameOID.COMMON_NAME:
            return one
        return x509.NameAttribute(one.oid, change(str(one.value)))

    return x509.Name(x509.RelativeDistinguishedName(map(changed, part)) for part in name.rdns)


def _numbered(number: int, text: str) -> str:
    match = _LAST_NUMBER.fullmatch(text)
    return f"{text if match is None else match[1]} {number}".strip()


def _issuers(members: Sequence[CaMember], root: x509.Certificate | None) -> IssuerSet | None:
    def having(*roles: CaRole) -> list[CaMember]:
        return [member for member in members if member.role in roles]

    current = [_authority(one, root) for one in having(CaRole.CURRENT)]
    following = [_authority(one, root) for one in having(CaRole.NEXT)]
    if not current:
        return None
    leaving = having(CaRole.PAST, CaRole.RETIRING, CaRole.RETIRED)
    # Once its last list is signed, an issuer signs no other: that one would have a higher number.
    return IssuerSet(
        current[0],
        following[0] if following else None,
        tuple(_authority(one, root) for one in leaving if one.last_crl_der is None),
        tuple(
            RetiredIssuer(_authority(one, root), one.last_crl_der)
            for one in leaving
            if one.last_crl_der is not None
        ),
    )


def _authority(member: CaMember, root: x509.Certificate | None) -> Authority:
    if member.key_id is None or root is None:
        raise Broken(f"CA '{member.ca}' has an issuer without a key or without a root in its store")
    return Authority(member.key_id, _certificate(member), root)


def _certificate(member: CaMember) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(member.certificate_der or b"")
    except ValueError:
        raise Broken(
            f"certificate of '{member.subject}' of CA '{member.ca}' does not parse, "
            "restore the store from a backup"
        ) from None
