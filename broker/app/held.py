"""Workflows and operator commands of a restored broker: reads pass, everything else waits.

What passes is listed, and what is not listed is refused, so that a method that is added later is
held until somebody has thought about it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import fields, replace
from typing import Any, Final, cast

from broker.issuance.origins import Origin
from broker.issuance.records import AccountRecord
from broker.issuance.standstill import Standstill
from broker.protocol.jws import Jwk, ParsedBinding
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewAccount
from broker.web.operator import OperationError, Operations
from broker.web.workflows import Accounts, Workflows

__all__ = ["held_operations", "held_workflows"]

READS: Final = frozenset({"require", "read", "list", "certificate", "suggestion"})
"""Methods of the workflows that change nothing but what has passed by itself."""

COMMANDS: Final = frozenset(
    {
        "status",
        "order_show",
        "order_list",
        "cert_show",
        "cert_list",
        "cert_retiring",
        "cert_watch",
        "cert_trace",
        "cert_evidence",
        "audit_status",
        "audit_checkpoint",
        "audit_public_key",
        "audit_export",
        "audit_trace",
        "renew_progress",
        "account_show",
        "account_list",
        "eab_list",
        # A backup knows nothing of what was frozen after it.
        "freeze",
        "frozen",
        "unfreeze",
        "owner_list",
        "owner_show",
        "upstream_list",
        "upstream_show",
        "upstream_check",
        "quota_show",
        # A person has to be able to mend what stands in the way of the reconciliation.
        "upstream_register",
        "upstream_recover",
        "upstream_former",
        "upstream_caa",
        "caa_check",
        "key_check",
        "secret_check",
        "ca_show",
        "policy_asked",
        "policy_asked_counts",
        "policy_explain",
        "workload_review",
        "policy_history",
        "policy_reload",
        "policy_set",
        "policy_status",
        "rollout_list",
        "rollout_show",
        "incident_list",
        "incident_show",
        "incident_plan",
        "approval_list",
        "approval_show",
        "node_list",
        "node_show",
        "node_requests",
        "node_tokens",
        "backup_made",
        "reconcile",
    }
)
"""Commands that are done on a restored broker."""


def held_workflows(workflows: Workflows, standstill: Standstill) -> Workflows:
    """Return *workflows*, which refuse every change for as long as *standstill* holds.

    Where it does not hold now it never will, and nothing stands before them.
    """
    if standstill.restoration is None:
        return workflows
    held = {
        one.name: _Held(getattr(workflows, one.name), READS, standstill, standstill.problem)
        for one in fields(workflows)
        if getattr(workflows, one.name) is not None
    }
    accounts = _HeldAccounts(workflows.accounts, READS, standstill, standstill.problem)
    return replace(workflows, **cast(Any, {**held, "accounts": accounts}))


def held_operations(operations: Operations, standstill: Standstill) -> Operations:
    """Return *operations*, which do the listed commands alone while *standstill* holds."""
    if standstill.restoration is None:
        return operations

    def refusal() -> OperationError:
        return OperationError(
            f"this broker is {standstill.reason()}: it changes nothing until it is",
            "see penstock reconcile",
        )

    return cast(Operations, _Held(operations, COMMANDS, standstill, refusal))


class _Held:
    """Stands before an object; its methods that are not listed raise for as long as it holds."""

    def __init__(
        self,
        inner: object,
        passing: Collection[str],
        standstill: Standstill,
        refusal: Callable[[], Exception],
    ) -> None:
        self._inner = inner
        self._passing = passing
        self._standstill = standstill
        self._refusal = refusal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in self._passing or not callable(found):
            return found
        return self._wrapped(found)

    def _wrapped(self, method: Callable[..., Awaitable[object]]) -> Any:
        @functools.wraps(method)
        async def attempt(*arguments: object, **named: object) -> object:
            if self._standstill.restoration is not None:
                raise self._refusal()
            return await method(*arguments, **named)

        return attempt


class _HeldAccounts(_Held):
    """Finds accounts by their key, and makes none."""

    async def register(
        self,
        community: str,
        key: Jwk,
        request: NewAccount,
        binding: ParsedBinding | None,
        *,
        origin: Origin,
    ) -> tuple[AccountRecord, bool]:
        """Return the account of *key*, or refuse to make one."""
        accounts = cast(Accounts, self._inner)
        if self._standstill.restoration is None:
            return await accounts.register(community, key, request, binding, origin=origin)
        try:
            asked = replace(request, only_return_existing=True)
            return await accounts.register(community, key, asked, None, origin=origin)
        except Problem as problem:
            is_new = problem.type is ProblemType.ACCOUNT_DOES_NOT_EXIST
            if is_new and not request.only_return_existing:
                raise self._standstill.problem() from problem
            raise
