"""The operator socket: commands from the same machine, each with who asked and why.

The socket is its owner's alone (mode 0600); who speaks is what the kernel says (SO_PEERCRED) and
not what the request says.  A command and its event row share a transaction, so that nothing is
changed by a command that leaves no name.
"""

from __future__ import annotations

import inspect
import json
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiohttp import web

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor
from broker.protocol.encoding import format_timestamp, parse_json_object
from broker.protocol.problems import Problem
from broker.web.answers import (
    Account,
    Approval,
    ApprovalDetail,
    ApprovalGiven,
    Certificate,
    CertificateDetail,
    EabKey,
    EabKeyMade,
    Freeze,
    JoinToken,
    JoinTokenMade,
    Node,
    Order,
    OrderDetail,
    Owned,
    OwnedThings,
    Owner,
    Status,
)
from broker.web.answers_deliveries import Delivery, DeliveryTrace
from broker.web.answers_oversight import (
    AuditCheckpointMade,
    AuditPage,
    AuditRecord,
    AuditStatus,
    CertificateEvidence,
    PolicyChange,
    PolicyReloaded,
    PolicyStatus,
)
from broker.web.answers_policies import PolicyExplanation
from broker.web.answers_upstreams import Quotas, Upstream
from broker.web.answers_workloads import WorkloadReview
from broker.web.listeners import hide_software
from broker.web.problems import incident_door
from broker.web.rights import COMMAND_PATH, Caller

__all__ = [
    "COMMAND_PATH",
    "Failure",
    "OperationError",
    "Operations",
    "create_operator_app",
    "failure_of",
    "perform",
]

MAX_COMMAND_BYTES: Final = 256 * 1024
"""Largest command, in bytes: a certificate chain for ``ca accept`` is the longest argument."""

MAX_REASON_CHARS: Final = 500
"""Longest reason that is kept with a command, in characters."""

_PEER_CREDENTIALS: Final = struct.Struct("3i")

Json = Any
"""What JSON can hold."""

Row = dict[str, Json]
"""An answer that is an object, of which no more is said."""

Rows = list[Row]
"""An answer that is a list of such."""


class OperationError(Exception):
    """A command that cannot be done as asked; the message is for the person who asked."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Operations(Protocol):
    """What an operator can have done.  Arguments and answers are plain JSON.

    Each method raises OperationError, or what the workflows raise; those that change something
    take the actor, who enters the event.  It is one list on purpose: it mirrors the command line.
    """

    async def approval_approve(
        self,
        *,
        actor: Actor,
        approval: str,
        evidence: list[str] | None = None,
        names: list[str] | None = None,
        profiles: list[str] | None = None,
        owner: str = "",
        contact: str = "",
    ) -> ApprovalGiven: ...
    async def approval_deny(
        self, *, actor: Actor, approval: str, evidence: list[str] | None = None
    ) -> ApprovalDetail: ...
    async def approval_list(
        self,
        *,
        community: str | None = None,
        status: str | None = None,
        ending_within: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Approval]: ...
    async def approval_renew(
        self, *, actor: Actor, approval: str, evidence: list[str] | None = None
    ) -> ApprovalDetail: ...
    async def approval_resume(self, *, actor: Actor, approval: str) -> ApprovalDetail: ...
    async def approval_show(self, *, approval: str) -> ApprovalDetail: ...
    async def approval_suspend(self, *, actor: Actor, approval: str) -> ApprovalDetail: ...
    async def approval_withdraw(self, *, actor: Actor, approval: str) -> ApprovalDetail: ...
    async def status(self) -> Status: ...
    async def order_show(self, *, order_id: str) -> OrderDetail: ...
    async def order_list(
        self,
        *,
        community: str | None = None,
        account: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Order]: ...
    async def cert_show(self, *, certificate: str) -> CertificateDetail: ...
    async def cert_list(
        self, *, community: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Certificate]: ...
    async def cert_revoke(
        self, *, actor: Actor, certificate: str, code: int = 0
    ) -> Certificate: ...
    async def cert_renewal(self, *, certificate: str) -> Row: ...
    async def cert_renewal_ask(self, *, actor: Actor, certificate: str) -> Row: ...
    async def cert_retiring(self, *, status: str | None = None, limit: int = 100) -> Rows: ...
    async def cert_watch(self, *, kind: str, limit: int = 100) -> Rows: ...
    async def cert_trace(self, *, reference: str) -> DeliveryTrace: ...
    async def cert_evidence(self, *, certificate: str) -> CertificateEvidence: ...
    async def audit_status(self) -> AuditStatus: ...
    async def audit_checkpoint(self, *, actor: Actor) -> AuditCheckpointMade: ...
    async def audit_public_key(self) -> Row: ...
    async def audit_export(
        self, *, after: int = 0, checkpoint: int = 0, limit: int = 1000
    ) -> AuditPage: ...
    async def audit_trace(self, *, reference: str) -> list[AuditRecord]: ...
    async def cert_release(self, *, actor: Actor, delivery: str) -> Delivery: ...
    async def cert_withdraw(self, *, actor: Actor, delivery: str) -> Delivery: ...
    async def renew(
        self,
        *,
        actor: Actor,
        target: str | None = None,
        nodes: str | None = None,
        all_due: bool = False,
        dry_run: bool = False,
    ) -> Row: ...
    async def renew_progress(self, *, deliveries: list[str]) -> Rows: ...
    async def account_show(self, *, account_id: str) -> Account: ...
    async def account_list(
        self, *, community: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Account]: ...
    async def account_deactivate(self, *, actor: Actor, account_id: str) -> Account: ...
    async def eab_mint(
        self,
        *,
        actor: Actor,
        community: str = "default",
        label: str = "",
        names: list[str] | None = None,
        profiles: list[str] | None = None,
        expires_in: str | None = None,
        reusable: bool = False,
        key_id: str | None = None,
        owner: str = "",
        contact: str = "",
    ) -> EabKeyMade: ...
    async def eab_list(self, *, community: str | None = None) -> list[EabKey]: ...
    async def eab_revoke(
        self, *, actor: Actor, key_id: str, community: str = "default"
    ) -> EabKey: ...
    async def freeze(
        self,
        *,
        actor: Actor,
        community: str | None = None,
        account: str | None = None,
        eab: str | None = None,
        node: str | None = None,
        upstream: str | None = None,
        until: str | None = None,
        tell: str | None = None,
        ask: str | None = None,
    ) -> Freeze: ...
    async def frozen(self) -> list[Freeze]: ...
    async def unfreeze(
        self,
        *,
        actor: Actor,
        community: str | None = None,
        account: str | None = None,
        eab: str | None = None,
        node: str | None = None,
        upstream: str | None = None,
    ) -> Freeze: ...
    async def owner_list(
        self, *, community: str | None = None, text: str | None = None, limit: int = 100
    ) -> list[Owner]: ...
    async def owner_set(
        self,
        *,
        actor: Actor,
        owner: str,
        contact: str = "",
        account: str | None = None,
        node: str | None = None,
        eab: str | None = None,
        community: str = "default",
    ) -> Owned: ...
    async def owner_show(
        self, *, owner: str, community: str | None = None, limit: int = 100
    ) -> OwnedThings: ...
    async def upstream_list(self) -> list[Upstream]: ...
    async def upstream_register(
        self,
        *,
        actor: Actor,
        upstream: str,
        community: str | None = None,
        agree_to_terms: bool = False,
    ) -> Rows: ...
    async def upstream_check(self, *, upstream: str | None = None) -> Rows: ...
    async def upstream_resume(
        self, *, actor: Actor, upstream: str, profile: str | None = None
    ) -> Row: ...
    async def upstream_adopt(
        self,
        *,
        actor: Actor,
        upstream: str,
        private_key: str,
        came_from: str,
        community: str | None = None,
        account_url: str | None = None,
        keep_key: bool = False,
        import_existing: bool = False,
        replace: bool = False,
    ) -> Row: ...
    async def upstream_adopt_certificates(
        self,
        *,
        actor: Actor,
        upstream: str,
        certificates: list[str],
        community: str | None = None,
    ) -> Rows: ...
    async def upstream_revoke(
        self,
        *,
        actor: Actor,
        upstream: str,
        certificate: str,
        code: int = 0,
        community: str | None = None,
    ) -> Row: ...
    async def upstream_move_key(
        self,
        *,
        actor: Actor,
        upstream: str,
        to: str,
        community: str | None = None,
        import_existing: bool = False,
        destroy_old: bool = False,
    ) -> Rows: ...
    async def upstream_recover(
        self,
        *,
        actor: Actor,
        upstream: str,
        community: str | None = None,
        agree_to_terms: bool = False,
        dry_run: bool = False,
    ) -> Rows: ...
    async def upstream_former(self, *, upstream: str | None = None) -> Rows: ...
    async def order_again(self, *, actor: Actor, order_id: str) -> Row: ...
    async def upstream_caa(
        self,
        *,
        upstream: str,
        community: str | None = None,
        names: list[str] | None = None,
        iodef: str | None = None,
    ) -> Rows: ...
    async def caa_check(self) -> Rows: ...
    async def key_check(self) -> Rows: ...
    async def secret_check(self) -> Rows: ...
    async def upstream_show(self, *, upstream: str) -> Upstream: ...
    async def upstream_rotate_key(
        self, *, actor: Actor, upstream: str, community: str | None = None
    ) -> Rows: ...
    async def ca_show(self, *, upstream: str | None = None) -> Row: ...
    async def ca_init(
        self,
        *,
        actor: Actor,
        upstream: str | None = None,
        subject: str | None = None,
        permitted_names: list[str] | None = None,
        permitted_networks: list[str] | None = None,
        unconstrained: bool = False,
        issuing_csr: bool = False,
    ) -> Row: ...
    async def ca_accept(
        self, *, actor: Actor, chain_pem: str, anchors_pem: str, upstream: str | None = None
    ) -> Row: ...
    async def ca_rotate_prepare(
        self,
        *,
        actor: Actor,
        upstream: str | None = None,
        subject: str | None = None,
        issuing_csr: bool = False,
    ) -> Row: ...
    async def ca_rotate_activate(self, *, actor: Actor, upstream: str | None = None) -> Row: ...
    async def ca_rotate_retire(
        self, *, actor: Actor, upstream: str | None = None, issuer: str | None = None
    ) -> Row: ...
    async def backup_made(
        self, *, actor: Actor, backup_id: str, made_at: str, size: int
    ) -> Row: ...
    async def quota_show(
        self,
        *,
        community: str | None = None,
        upstream: str | None = None,
        limit: int = 100,
    ) -> Quotas: ...
    async def reconcile(
        self, *, actor: Actor, accept_loss: list[str] | None = None
    ) -> Row | None: ...
    async def node_token(
        self,
        *,
        actor: Actor,
        node: str | None = None,
        nodes: str | None = None,
        community: str = "default",
        names: list[str] | None = None,
        profiles: list[str] | None = None,
        owner: str = "",
        contact: str = "",
        expires_in: str | None = None,
    ) -> JoinTokenMade: ...
    async def node_tokens(self) -> list[JoinToken]: ...
    async def node_token_revoke(self, *, actor: Actor, token_id: str) -> JoinToken: ...
    async def node_requests(self) -> Rows: ...
    async def node_approve(
        self,
        *,
        actor: Actor,
        request_id: str,
        community: str = "default",
        names: list[str] | None = None,
        profiles: list[str] | None = None,
        owner: str = "",
        contact: str = "",
    ) -> Row: ...
    async def node_deny(self, *, actor: Actor, request_id: str) -> Row: ...
    async def node_list(
        self, *, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Node]: ...
    async def node_show(self, *, node: str) -> Node: ...
    async def node_drain(self, *, actor: Actor, node: str) -> Node: ...
    async def node_resume(self, *, actor: Actor, node: str) -> Node: ...
    async def node_revoke(self, *, actor: Actor, node: str) -> Node: ...
    async def incident_plan(
        self, *, select: dict[str, str], deadline: str | None = None
    ) -> Row: ...
    async def incident_start(
        self,
        *,
        actor: Actor,
        select: dict[str, str],
        deadline: str | None = None,
        code: int = 4,
        at_once: int | None = None,
        explanation: str | None = None,
    ) -> Row: ...
    async def incident_list(self) -> Rows: ...
    async def incident_show(self, *, incident: str) -> Row: ...
    async def incident_pause(self, *, actor: Actor, incident: str) -> Row: ...
    async def incident_resume(self, *, actor: Actor, incident: str) -> Row: ...
    async def incident_abandon(self, *, actor: Actor, incident: str) -> Row: ...
    async def rollout_list(self) -> Rows: ...
    async def rollout_show(self, *, group: str) -> Row: ...
    async def rollout_halt(self, *, actor: Actor, group: str) -> Row: ...
    async def rollout_resume(self, *, actor: Actor, group: str) -> Row: ...
    async def order_retry(self, *, actor: Actor, order_id: str) -> Row: ...
    async def policy_asked(
        self, *, kind: str, days: int, after: list[object] | None = None, limit: int = 2_000
    ) -> Row: ...
    async def policy_asked_counts(self, *, days: int) -> Row: ...
    async def policy_history(self, *, limit: int = 20) -> list[PolicyChange]: ...
    async def policy_reload(self, *, actor: Actor) -> PolicyReloaded: ...
    async def policy_set(self, *, sha256: str) -> Row: ...
    async def policy_status(self) -> PolicyStatus: ...
    async def policy_explain(
        self,
        *,
        names: list[str],
        community: str = "default",
        account: str | None = None,
        eab: str | None = None,
        profile: str | None = None,
        node: str | None = None,
        address: str | None = None,
        client_names: list[str] | None = None,
        client_fingerprint: str | None = None,
        at: str | None = None,
        renewal: bool | None = None,
    ) -> PolicyExplanation: ...
    async def workload_review(
        self,
        *,
        cluster: str,
        namespace: str,
        service_account: str,
        pod: str = "",
        services: list[str] | None = None,
        pod_labels: dict[str, str] | None = None,
        names: list[str] | None = None,
        profile: str | None = None,
    ) -> WorkloadReview: ...


COMMANDS: Final = frozenset(
    name for name, member in vars(Operations).items() if inspect.iscoroutinefunction(member)
)
"""Every command there is; nothing else of an object can be called through the socket."""


Failure = dict[str, str | None]
"""``error`` and ``hint``, as the command line prints them."""


def failure_of(error: Exception) -> Failure | None:
    """Return what an operator is told of *error*; None when it is no outcome but a bug."""
    match error:
        case OperationError():
            return {"error": error.message, "hint": error.hint}
        case Problem():
            return {"error": error.detail, "hint": None}
        case Refused():
            return {"error": f"the CA refused: {error.problem.detail}", "hint": None}
        case Unreachable():
            at = error.retry_at
            when = "later" if at is None else f"after {format_timestamp(at)}"
            return {"error": error.reason, "hint": error.hint or f"try again {when}"}
        case Broken() | Conflict():
            return {"error": error.reason, "hint": None}
        case _:
            return None


async def perform(
    operations: Operations, command: str, arguments: Mapping[str, object], actor: Actor
) -> Json:
    """Run *command* and return its answer.

    Raises:
        OperationError: There is no such command, or its arguments do not fit; and whatever the
            command itself raises.
    """
    if command not in COMMANDS:
        raise OperationError(f"there is no command '{command[:64]}'")
    method = getattr(operations, command)
    signature = inspect.signature(method)
    own = {"actor": actor} if "actor" in signature.parameters else {}
    try:
        bound = signature.bind(**arguments, **own)
    except TypeError as error:
        raise OperationError(f"arguments do not fit command '{command}': {error}") from error
    return await method(*bound.args, **bound.kwargs)


class Users(Protocol):
    """Knows which people the users of this host are."""

    def by_user(self, user: str, *, is_owner: bool) -> Caller | None:
        """Return who the process of *user* speaks for, None when they are nobody here."""
        ...


class Passage(Protocol):
    """Lets commands through to those who may have them done (``web.authorizing.Gate``)."""

    async def perform(
        self, caller: Caller, command: str, arguments: Mapping[str, object], reason: str | None
    ) -> Json:
        """Have *command* done for *caller*."""
        ...


def create_operator_app(
    operations: Operations, *, gate: Passage | None = None, users: Users | None = None
) -> web.Application:
    """Return the application of the operator socket.

    Without *gate* and *users* every command is done for the broker's own user and root alone.
    """

    async def command(request: web.Request) -> web.StreamResponse:
        caller = _peer(request, users)
        try:
            body = parse_json_object(await request.read(), what="command")
            actor = Actor(f"operator:{caller.name}", _reason(body))
            arguments = body.get("arguments", {})
            if not isinstance(arguments, dict):
                raise OperationError("arguments are no object")
            name = str(body.get("command"))
            if gate is None:
                result = await perform(operations, name, arguments, actor)
            else:
                result = await gate.perform(caller, name, arguments, actor.reason)
        except (OperationError, Problem, Refused, Unreachable, Broken, Conflict) as error:
            return web.json_response(failure_of(error), status=422)
        return web.json_response({"result": result})

    app = web.Application(middlewares=[incident_door], client_max_size=MAX_COMMAND_BYTES)
    app.router.add_post(COMMAND_PATH, command)
    app.on_response_prepare.append(hide_software)
    return app


def _reason(body: Mapping[str, object]) -> str | None:
    reason = body.get("reason")
    if reason is None:
        return None
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS:
        raise OperationError(f"reason is no text of at most {MAX_REASON_CHARS} characters")
    return reason


def _peer(request: web.Request, users: Users | None) -> Caller:
    """Return who is at the other end, as the kernel knows it."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None or peer.family != socket.AF_UNIX:
        raise web.HTTPForbidden(text=json.dumps({"error": "commands come over a Unix socket"}))
    octets = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(octets)
    is_owner, name = uid in {0, os.geteuid()}, user_name(uid)
    caller = None if users is None else users.by_user(name, is_owner=is_owner)
    if caller is None and is_owner:
        caller = Caller(name=name, roles={}, is_owner=True)
    if caller is None:
        # The socket's mode may say so already; a directory moved about must not change it.
        raise web.HTTPForbidden(text=json.dumps({"error": f"uid {uid} is no operator here"}))
    return caller


def user_name(uid: int) -> str:
    """Return the name of a user, or ``uid-N`` for one that has none, as in containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
