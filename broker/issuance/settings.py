"""What the workflows are told by configuration, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from broker.issuance.key_ports import ReadSecret

__all__ = ["CommunitySettings", "DeclaredEabKey", "IssuanceSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredEabKey:
    """An external account binding key that stands in the configuration."""

    key_id: str
    community: str
    mac_key: ReadSecret
    """Reads its MAC key, which may lie in Vault."""
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    is_reusable: bool = True
    owner: str = ""
    """Who answers for it; empty: whoever a command names."""
    contact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunitySettings:
    """What a community demands of an account before any policy is asked."""

    name: str
    terms_of_service: str | None = None
    """URL; when set, newAccount without ``termsOfServiceAgreed`` is refused."""
    external_account_required: bool = False
    terms_version: str | None = None
    """Version of the terms; an account that agreed to another has to agree anew before it orders.
    None: agreed once is agreed for good."""
    terms_instance: str | None = None
    """URL that tells a person how to agree anew; the terms' own where there is none."""
    pre_authorization: timedelta | None = None
    """How long a pre-authorization is good; None: none is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuanceSettings:
    """Times and bounds of the workflows."""

    communities: Mapping[str, CommunitySettings]
    declared_eab_keys: tuple[DeclaredEabKey, ...] = ()
    order_lifetime: timedelta = timedelta(hours=8)
    """How long an order may stay pending or ready; public CAs give 8 hours to 7 days."""
    finalize_wait: timedelta = timedelta(seconds=5)
    """How long the answer to finalize is held back for a fast upstream."""
    validation_retries: tuple[timedelta, ...] = (timedelta(seconds=1), timedelta(seconds=4))
    """Pauses before a validation that met a passing fault is tried again."""
    poll_deadline: timedelta = timedelta(seconds=60)
    """How long one run polls an upstream order before it makes room and is tried again."""
    max_eab_names: int = field(default=100)
    """Most name patterns an external account binding key may be limited to."""
