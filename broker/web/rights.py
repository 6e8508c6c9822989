"""Who may do which command, and where: one table of all commands, and what is asked of it.

A role is held in a community, or everywhere (``*``).  Whoever holds any role in a community sees
it; what changes something names the roles that may.  The table is complete by a test: a command
that nobody thought about is done for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.policy.roles import EVERYWHERE, Role

__all__ = [
    "COMMAND_PATH",
    "READING",
    "RIGHTS",
    "Caller",
    "Reference",
    "Right",
    "Thing",
]

COMMAND_PATH: Final = "/v1/command"
"""Where commands are posted; here, so that whoever posts one need not import what answers."""

READING: Final = frozenset(Role) - {Role.ADMISSION}
"""Every role of a person sees."""
REVIEWING: Final = frozenset(Role)
"""What admits pods asks this and nothing else."""

OPERATING: Final = frozenset({Role.OPERATOR})
DECIDING: Final = frozenset({Role.APPROVER})
RULING: Final = frozenset({Role.SECURITY})
AUDITING: Final = frozenset({Role.AUDITOR})
TRAILING: Final = frozenset({Role.AUDITOR, Role.SECURITY})
"""The trail tells of every community, its people included."""
WITHHOLDING: Final = frozenset({Role.APPROVER, Role.SECURITY})
STOPPING: Final = frozenset({Role.OPERATOR, Role.SECURITY})
"""To stop something is for whoever sees the fire first."""


class Thing(StrEnum):
    """What an argument can name that is of a community."""

    COMMUNITY = "community"
    """The community itself."""
    ORDER = "order"
    CERTIFICATE = "certificate"
    """By its id or its fingerprint."""
    ACCOUNT = "account"
    NODE = "node"
    JOIN_TOKEN = "join-token"
    MANAGED = "managed certificate or node"
    """A node, or certificates at nodes by their name: they may be of several communities."""
    DELIVERY = "delivery"
    """By its own id, or by the order or the certificate that it brought."""
    APPROVAL = "approval"
    CLUSTER = "cluster"
    """Of the communities that its pods can be of."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An argument that tells where a command is done."""

    thing: Thing
    argument: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Who may do a command, and how it is known where it is done."""

    roles: frozenset[Role]
    references: tuple[Reference, ...] = ()
    """What is named has to be of communities where the role is held, all of it; where no thing is
    named, the community is.  Without any the role has to be held everywhere."""
    by_rows: bool = False
    """Whether each row of the answer tells its own ``community``: rows of others are left out."""
    page_by: str | None = None
    """Which member of a row the next page begins after, for lists that have pages."""
    is_personal: bool = False
    """Whether it takes a person who is named in the configuration, once that names any who may."""


def _everywhere(roles: frozenset[Role]) -> Right:
    return Right(roles=roles)


def _of(roles: frozenset[Role], thing: Thing, argument: str) -> Right:
    return Right(roles=roles, references=(Reference(thing, argument),))


def _in_community(roles: frozenset[Role]) -> Right:
    return _of(roles, Thing.COMMUNITY, "community")


def _rows(page_by: str | None = None) -> Right:
    return Right(roles=READING, by_rows=True, page_by=page_by)


def _of_one(roles: frozenset[Role]) -> Right:
    """Return the right to a command that is about one node, account or community."""
    references = (
        Reference(Thing.NODE, "node"),
        Reference(Thing.ACCOUNT, "account"),
        Reference(Thing.COMMUNITY, "community"),
    )
    return Right(roles=roles, references=references)


def _deciding() -> Right:
    references = (Reference(Thing.APPROVAL, "approval"),)
    return Right(roles=DECIDING, references=references, is_personal=True)


RIGHTS: Final[Mapping[str, Right]] = MappingProxyType(
    {
        "account_deactivate": _of(OPERATING, Thing.ACCOUNT, "account_id"),
        "account_list": _in_community(READING),
        "account_show": _of(READING, Thing.ACCOUNT, "account_id"),
        "approval_approve": _deciding(),
        "approval_deny": _deciding(),
        "approval_list": _in_community(READING),
        "approval_renew": _deciding(),
        "approval_resume": _deciding(),
        "approval_show": _of(READING, Thing.APPROVAL, "approval"),
        # To hold something up is for whoever sees the fire first.
        "approval_suspend": _of(WITHHOLDING, Thing.APPROVAL, "approval"),
        "approval_withdraw": _of(WITHHOLDING, Thing.APPROVAL, "approval"),
        "audit_checkpoint": _everywhere(TRAILING),
        "audit_export": _everywhere(TRAILING),
        "audit_public_key": _everywhere(READING),
        "audit_status": _everywhere(READING),
        "audit_trace": _everywhere(TRAILING),
        "backup_made": _everywhere(OPERATING),
        "ca_accept": _everywhere(OPERATING),
        "ca_init": _everywhere(OPERATING),
        "ca_rotate_activate": _everywhere(OPERATING),
        "ca_rotate_prepare": _everywhere(OPERATING),
        "ca_rotate_retire": _everywhere(OPERATING),
        "ca_show": _everywhere(READING),
        "caa_check": _everywhere(READING),
        "cert_evidence": _of(READING, Thing.CERTIFICATE, "certificate"),
        "cert_list": _in_community(READING),
        "cert_release": _of(OPERATING, Thing.DELIVERY, "delivery"),
        "cert_renewal": _of(READING, Thing.CERTIFICATE, "certificate"),
        # It sends a request to the CA, out of turn.
        "cert_renewal_ask": _of(OPERATING, Thing.CERTIFICATE, "certificate"),
        "cert_retiring": _rows(),
        "cert_revoke": _of(OPERATING, Thing.CERTIFICATE, "certificate"),
        "cert_show": _of(READING, Thing.CERTIFICATE, "certificate"),
        "cert_trace": _of(READING, Thing.DELIVERY, "reference"),
        "cert_watch": _rows(),
        "cert_withdraw": _of(OPERATING, Thing.DELIVERY, "delivery"),
        "eab_list": _rows(),
        "eab_mint": _in_community(OPERATING),
        "eab_revoke": _in_community(OPERATING),
        "freeze": _of_one(STOPPING),
        "frozen": _rows(),
        "incident_abandon": _everywhere(OPERATING),
        "incident_list": _everywhere(READING),
        "incident_pause": _everywhere(OPERATING),
        "incident_plan": _everywhere(READING),
        "incident_resume": _everywhere(OPERATING),
        "incident_show": _everywhere(READING),
        "incident_start": _everywhere(OPERATING),
        "key_check": _everywhere(READING),
        # A request of a node is of no community until somebody puts it into one.
        "node_approve": _everywhere(DECIDING),
        "node_deny": _everywhere(DECIDING),
        "node_drain": _of(OPERATING, Thing.NODE, "node"),
        "node_list": _rows("node_id"),
        "node_requests": _everywhere(READING),
        "node_resume": _of(OPERATING, Thing.NODE, "node"),
        "node_revoke": _of(OPERATING, Thing.NODE, "node"),
        "node_show": _of(READING, Thing.NODE, "node"),
        "node_token": _in_community(OPERATING),
        "node_token_revoke": _of(OPERATING, Thing.JOIN_TOKEN, "token_id"),
        "node_tokens": _rows(),
        "order_again": _of(OPERATING, Thing.ORDER, "order_id"),
        "order_list": _in_community(READING),
        "order_retry": _of(OPERATING, Thing.ORDER, "order_id"),
        "order_show": _of(READING, Thing.ORDER, "order_id"),
        "owner_list": _in_community(READING),
        "owner_set": _of_one(OPERATING),
        "owner_show": _in_community(READING),
        # What everybody asked for, of every community.
        "policy_asked": _everywhere(READING),
        "policy_asked_counts": _everywhere(READING),
        "policy_explain": Right(
            roles=READING,
            references=(
                Reference(Thing.NODE, "node"),
                Reference(Thing.ACCOUNT, "account"),
                Reference(Thing.COMMUNITY, "community"),
            ),
        ),
        "policy_history": _everywhere(READING),
        "policy_reload": _everywhere(RULING),
        "policy_set": _everywhere(READING),
        "policy_status": _everywhere(READING),
        "quota_show": _in_community(READING),
        "reconcile": _everywhere(OPERATING),
        "renew": _of(OPERATING, Thing.MANAGED, "target"),
        "renew_progress": _rows(),
        # A group's nodes may be of several communities.
        "rollout_halt": _everywhere(OPERATING),
        "rollout_list": _everywhere(READING),
        "rollout_resume": _everywhere(OPERATING),
        "rollout_show": _everywhere(READING),
        "secret_check": _everywhere(READING),
        "status": _everywhere(READING),
        # Whoever operates stops, and does not overrule whoever stopped.
        "unfreeze": _of_one(RULING),
        "upstream_adopt": _everywhere(OPERATING),
        "upstream_adopt_certificates": _everywhere(OPERATING),
        "upstream_caa": _everywhere(READING),
        "upstream_check": _everywhere(READING),
        "upstream_former": _everywhere(READING),
        "upstream_list": _everywhere(READING),
        "upstream_move_key": _everywhere(OPERATING),
        "upstream_recover": _everywhere(OPERATING),
        "upstream_register": _everywhere(OPERATING),
        "upstream_resume": _everywhere(OPERATING),
        "upstream_revoke": _everywhere(OPERATING),
        "upstream_rotate_key": _everywhere(OPERATING),
        "upstream_show": _everywhere(READING),
        "workload_review": _of(REVIEWING, Thing.CLUSTER, "cluster"),
    }
)
"""Each command with who may do it.  Upstreams, CA, backup and policy are of no community: they take
the role everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever asks for a command, as far as it is proven."""

    name: str
    """What events call them, after ``operator:``."""
    roles: Mapping[str, frozenset[Role]]
    """The roles held in each community; those under ``*`` are held in all."""
    is_owner: bool = False
    """Whether it is the broker's own user, or root, at the socket: they can do by other ways
    whatever they are refused here, so that nothing is but what takes a person."""
    is_person: bool = False
    """Whether the configuration names them."""
    proof: Mapping[str, str] = field(default_factory=dict)
    """How it is known who they are, for the event; nothing that lets somebody else be them."""

    def held(self, community: str) -> frozenset[Role]:
        """Return the roles held in *community*, or everywhere where that is ``*``."""
        if self.is_owner:
            return frozenset(Role)
        everywhere = self.roles.get(EVERYWHERE, frozenset())
        return everywhere | self.roles.get(community, frozenset())

    def communities(self) -> Sequence[str]:
        """Return the communities in which a role is held, without ``*``."""
        return sorted(name for name, held in self.roles.items() if held and name != EVERYWHERE)
