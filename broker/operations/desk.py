"""The operator's desk: each command as one method, over workflows and store.

What changes something is done by a workflow or written with its event in one transaction; the
event names the operator and the reason.
"""

from __future__ import annotations

from typing import Any

from broker.operations import views
from broker.operations.account_recovery import AccountRecoveryDesk
from broker.operations.adoption import AdoptionDesk
from broker.operations.approvals import ApprovalDesk
from broker.operations.authorities import AuthorityDesk
from broker.operations.deliveries import DeliveryDesk
from broker.operations.evidence import EvidenceDesk
from broker.operations.explaining import ExplainingDesk
from broker.operations.freezing import FreezeDesk
from broker.operations.incidents import IncidentDesk
from broker.operations.keys import KeyDesk
from broker.operations.nodes import NodeDesk
from broker.operations.owners import OwnerDesk
from broker.operations.policies import PolicyDesk
from broker.operations.quotas import QuotaDesk
from broker.operations.recovery import RecoveryDesk
from broker.operations.renewals import RenewalDesk
from broker.operations.replays import ReplayDesk
from broker.operations.requesters import RequesterDesk
from broker.operations.rollouts import RolloutDesk
from broker.operations.rotation import RotationDesk
from broker.operations.secrets import SecretDesk
from broker.operations.upstream_accounts import UpstreamAccountDesk
from broker.operations.workloads import WorkloadDesk

__all__ = ["OperatorDesk"]


class OperatorDesk(
    RequesterDesk,
    RenewalDesk,
    RotationDesk,
    KeyDesk,
    SecretDesk,
    AuthorityDesk,
    RecoveryDesk,
    AdoptionDesk,
    ApprovalDesk,
    AccountRecoveryDesk,
    UpstreamAccountDesk,
    NodeDesk,
    PolicyDesk,
    ExplainingDesk,
    QuotaDesk,
    ReplayDesk,
    RolloutDesk,
    IncidentDesk,
    DeliveryDesk,
    EvidenceDesk,
    FreezeDesk,
    OwnerDesk,
    WorkloadDesk,
):
    """Implements ``web.operator.Operations``."""

    async def status(self) -> Any:
        """Return what a person looks at first."""
        suspensions = await self._store.suspensions()
        policies = {name: self._rooms.policies.current(name) for name in self._rooms.communities}
        configuration = self._rooms.configuration
        return {
            "version": self._rooms.version,
            "configuration": None if configuration is None else configuration.view(),
            "policies": {name: made.sha256 for name, made in policies.items()},
            "restored": self.restoration_view(),
            "counts": await self._store.outcome_counts(),
            "suspensions": [views.suspension_view(each) for each in suspensions],
        }
